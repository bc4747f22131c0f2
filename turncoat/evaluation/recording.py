"""The record of a cell: what was measured, example by example, and apart from it how and where."""

import importlib.metadata
import io
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from turncoat.attacks import Threat
from turncoat.evaluation.calibration_error import calibration_error
from turncoat.evaluation.results import Bools, Evaluation, Flag, counted
from turncoat.files import read_json, sha256, write_atomic, write_json

if TYPE_CHECKING:
    from turncoat.evaluation.written import About

SCHEMA = 1
BROUGHT = "brought"  # stands for the method of a network that no arm made
CODE = ("stages", "turncoat", "dvc.yaml", "pyproject.toml", "requirements.txt")  # what makes a record, besides settings


def measurements(result: Evaluation, classes: Sequence[str], baseline: Bools | None = None) -> dict[str, Any]:
    """The part of a record that one set of weights fills.

    Args:
        baseline: (n,) whether the network that the arm started from classifies each clean image rightly.
    """
    attacks = {
        name: counted(right)
        | ({"met": result.met[name]} if name in result.met else {})
        | ({"threat": result.threats[name]} if name in result.threats else {})
        | ({"rungs": result.rungs[name]} if name in result.rungs else {})
        | result.passes[name]
        for name, right in result.correct.items()
    }
    for name, parts in result.parts.items():
        attacks[name]["fell"] = {part: int(fell.sum()) for part, fell in parts.items()}
    classed = [{"class": name} | _counts(result, result.label == place) for place, name in enumerate(classes)]
    subsets = {} if baseline is None else {"baseline-right": baseline, "baseline-wrong": ~baseline}
    return {
        "clean": counted(result.clean),
        "attacks": attacks,
        "worst": counted(result.worst) | {"attacks": result.in_worst},
        "unseen": {
            name: counted(result.worst_of(attacks)) | {"attacks": attacks} for name, attacks in result.unseen.items()
        },
        "curve": result.curve,
        "calibration": calibration_error(result.confidence, result.clean),
        "per_class": classed,
        "shifts": result.shifts,
        "corruptions": result.corruptions,
        "universal": [row | {"target": classes[row["target"]]} for row in result.universal],
        "subsets": [{"subset": name} | _counts(result, members) for name, members in subsets.items()],
        **({"overstatement": result.overstatement} if result.overstatement is not None else {}),
        **({"batch_size": result.batch_size} if result.batch_size else {}),
    }


def flag_rows(flags: Sequence[Flag]) -> list[dict[str, Any]]:
    """The flags as JSON."""
    return [{"name": flag.name, "attack": flag.attack, "detail": flag.detail, "blocks": flag.blocks} for flag in flags]


def _counts(result: Evaluation, members: Bools) -> dict[str, int]:
    """How many images there are, are right, and stand in the worst case."""
    return {
        "n": int(members.sum()),
        "clean": int((result.clean & members).sum()),
        "worst": int((result.worst & members).sum()),
    }


def evaluation_cost(result: Evaluation) -> dict[str, float]:
    """Forward and backward passes an image: of all attacks, of the clean accuracy, the curve and the checks."""
    return {
        way: round(sum(passes[way] for passes in [result.overhead, *result.passes.values()]), 3)
        for way in ("forward", "backward")
    }


def cell_record(
    training: Mapping[str, Any],
    suite: Mapping[str, Any],
    threat: Threat,
    classes: Sequence[str],
    results: Mapping[str, Evaluation],
    baseline: Bools,
) -> dict[str, Any]:
    """The record of a cell but for its `examples`.

    Args:
        training: training.json. suite: its name and settings. results: of the "best" and the "last" weights.
    """
    best, last = results["best"], results["last"]
    return {
        "schema": SCHEMA,
        "cell": training["cell"],
        "method": training["settings"]["arm"]["method"],
        "fingerprint": training["fingerprint"],
        "settings": training["settings"] | {"suite": dict(suite)},
        "threat": {"norm": threat.norm, "epsilon": threat.epsilon},
        "classes": list(classes),
        "best": measurements(best, classes, baseline),
        "last": {
            "clean": counted(last.clean),
            "attacks": {name: counted(right) for name, right in last.correct.items()},
        },
        "validation": training["validation"] | {"best_epoch": training["best_epoch"]},
        "flags": flag_rows(best.flags),
        "cost": {
            "training": {name: training["cost"][name] for name in ("images", "forward", "backward")},
            "evaluation": evaluation_cost(best),
            "parameters": training["parameters"],
        },
        "weights": training["weights"],
        **({"tuning": training["tuning"]} if "tuning" in training else {}),
    }


def brought_record(result: Evaluation, cell: Mapping[str, Any], about: "About") -> dict[str, Any]:
    """The record of a network that no arm of a study made, but for its `examples`; its weights are the last and best.

    Args:
        cell: the data set, the name that it goes by beside the study's arms, the seed of its evaluation.
    """
    weights = about.told.get("sha256", "")
    return {
        "schema": SCHEMA,
        "cell": dict(cell),
        "method": BROUGHT,
        "fingerprint": about.fingerprint,
        "settings": {
            "arm": {"method": BROUGHT, "network": about.name, **about.told},
            "dataset": {"threat": {"norm": about.threat.norm, "epsilon": about.threat.epsilon}},
            "suite": dict(about.suite),
        },
        "threat": {"norm": about.threat.norm, "epsilon": about.threat.epsilon},
        "classes": list(about.classes),
        "best": measurements(result, about.classes),
        "last": {"clean": counted(result.clean), "attacks": {}},
        "validation": {},
        "flags": flag_rows(result.flags),
        "cost": {
            "training": {"images": 0, "forward": 0.0, "backward": 0.0},
            "evaluation": evaluation_cost(result),
            "parameters": about.parameters,
        },
        "weights": {"best": weights, "last": weights},
        "command": about.command,
    }


def write_examples(path: Path, result: Evaluation) -> dict[str, str]:
    """Store per-example results; the same results give the same bytes. Returns the record's `examples` entry."""
    buffer = io.BytesIO()
    arrays = {
        "index": np.arange(len(result.label)),
        "label": result.label,
        "prediction": result.prediction,
        "confidence": result.confidence,
        "clean": result.clean,
        "worst": result.worst,
        **{name: result.worst_of(attacks) for name, attacks in result.unseen.items()},
        **result.correct,
        **result.scenes,
    }
    # uncompressed, with numpy's fixed time stamp: the content alone makes the bytes
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())
    return {"file": path.name, "sha256": sha256(path)}


def write_provenance(folder: Path, device: str) -> dict[str, Any]:
    """provenance.json beside a finished record.json: what may differ between machines that measured the same."""
    import torch

    provenance = {
        **commit(),
        "fingerprint": read_json(folder / "record.json")["fingerprint"],
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "numpy")},
        },
        "hardware": {"cpu": _processor(), "cores": os.cpu_count()}
        | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}),
        "device": device,
        "threads": torch.get_num_threads(),
        "record_sha256": sha256(folder / "record.json"),
    }
    write_json(folder / "provenance.json", provenance)
    return provenance


def write_times(path: Path, seconds: Mapping[str, float]) -> dict[str, Any]:
    """When a record was finished and what it took: out of DVC's sight, so that equal runs have an equal dvc.lock.

    Args:
        seconds: of the "evaluation", and of the "training" where it ran in this checkout.
    """
    times = {
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(path, times)
    return times


def commit() -> dict[str, Any]:
    """The commit of the checkout, and whether its code is another by now (`dirty`); None for both without git.

    An edited params.yaml is no other code: the record itself holds the settings that it was made with.
    """
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=all", "--", *CODE],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": head.stdout.strip(), "dirty": bool(status.stdout.strip())}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
