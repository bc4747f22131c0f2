"""The record of a cell of segmentation or detection: the same form as any, with a task and measures of its own."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turncoat.attacks import Threat
from turncoat.evaluation.dense import DenseEvaluation
from turncoat.evaluation.recording import SCHEMA, flag_rows
from turncoat.files import sha256, write_atomic
from turncoat.overlap import Matches
from turncoat.training.agreement import PRIMARY


def share(value: float, n: int) -> dict[str, Any]:
    """A measure where a record has a count: `value` is what was measured, `correct` of `n` the nearest to it."""
    return {"correct": round(value * n), "n": n, "value": value}


def dense_measurements(result: DenseEvaluation, classes: Sequence[str]) -> dict[str, Any]:
    """The part of a record that one set of weights fills; the measure of clean and attacked images is `PRIMARY`'s."""
    first, n = PRIMARY[result.task], result.n
    attacks = [name for name in result.counts if name != "clean"]
    others: dict[str, Any] = {}
    for condition in result.counts:
        after = "" if condition == "clean" else f"-{condition}"
        found = {name: value for name, value in result.measures(condition).items() if name != first}
        others |= {f"{name}{after}": share(value, n) for name, value in found.items()}
    return {
        "clean": share(result.primary("clean"), n),
        "attacks": {name: share(result.primary(name), n) | result.passes[name] for name in attacks},
        "measures": others,
        "by_class": {
            condition: dict(zip(classes, result.by_class(condition), strict=True)) for condition in result.counts
        },
        "loss": {condition: float(losses.mean()) for condition, losses in result.losses.items()},
    }


def dense_record(
    training: Mapping[str, Any],
    suite: Mapping[str, Any],
    threat: Threat,
    classes: Sequence[str],
    results: Mapping[str, DenseEvaluation],
) -> dict[str, Any]:
    """The record of a cell but for its `examples`.

    Args:
        training: training.json. suite: its name and settings. results: of the "best" and the "last" weights.
    """
    best, last = results["best"], results["last"]
    return {
        "schema": SCHEMA,
        "task": best.task,
        "cell": training["cell"],
        "method": training["settings"]["arm"]["method"],
        "fingerprint": training["fingerprint"],
        "settings": training["settings"] | {"suite": dict(suite)},
        "threat": {"norm": threat.norm, "epsilon": threat.epsilon},
        "classes": list(classes),
        "best": dense_measurements(best, classes),
        "last": {"clean": share(last.primary("clean"), last.n), "attacks": {}},
        "validation": training["validation"] | {"best_epoch": training["best_epoch"]},
        "flags": flag_rows(best.flags),
        "cost": {
            "training": {name: training["cost"][name] for name in ("images", "forward", "backward")},
            "evaluation": {way: sum(passes[way] for passes in best.passes.values()) for way in ("forward", "backward")},
            "parameters": training["parameters"],
        },
        "weights": training["weights"],
    }


def write_dense_examples(path: Path, result: DenseEvaluation) -> dict[str, str]:
    """Store what was counted image by image, and what was found in the first of them; the same results, the same bytes.

    Returns: the record's `examples` entry.
    """
    arrays: dict[str, NDArray[Any]] = {"index": np.arange(result.n)}
    for condition, counts in result.counts.items():
        arrays[f"loss {condition}"] = result.losses[condition]
        if isinstance(counts, Matches):
            arrays["truth"] = counts.truth.astype(np.int32)
            for name in ("image", "kind", "score", "right"):
                values = getattr(counts, name)
                arrays[f"{name} {condition}"] = values.astype(np.int32) if values.dtype == np.int64 else values
            arrays[f"shown {condition}"] = _rows(result.shown[condition])
        else:
            arrays[f"confusion {condition}"] = counts.astype(np.uint32)
            arrays[f"shown {condition}"] = np.stack([mask.cpu().numpy() for mask in result.shown[condition]])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())
    return {"file": path.name, "sha256": sha256(path)}


def _rows(found: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """(n, m, 6): class, score and corners of the detections of some images, rows of −1 where there are fewer."""
    most = max([1, *(len(one["scores"]) for one in found)])
    rows = np.full((len(found), most, 6), -1, np.float32)
    for place, one in enumerate(found):
        boxes = np.asarray(one["boxes"]).reshape(-1, 4)
        rows[place, : len(boxes)] = np.column_stack([np.asarray(one["labels"]), np.asarray(one["scores"]), boxes])
    return rows
