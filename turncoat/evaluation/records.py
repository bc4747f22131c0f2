"""The record of a cell: what was measured, example by example, and apart from it how and where."""

import importlib.metadata
import io
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from turncoat.evaluation.calibration import calibration
from turncoat.evaluation.evaluate import Evaluation, counted
from turncoat.files import sha256, write_atomic, write_json

SCHEMA = 1


def measurements(result: Evaluation, classes: Sequence[str]) -> dict[str, Any]:
    """The part of a record that one set of weights fills."""
    worst = result.worst
    return {
        "clean": counted(result.clean),
        "attacks": {name: counted(right) | result.passes[name] for name, right in result.correct.items()},
        "worst": counted(worst) | {"attacks": list(result.correct)},
        "curve": result.curve,
        "calibration": calibration(result.confidence, result.clean),
        "per_class": [
            {
                "class": name,
                "n": int((result.label == place).sum()),
                "clean": int(result.clean[result.label == place].sum()),
                "worst": int(worst[result.label == place].sum()),
            }
            for place, name in enumerate(classes)
        ],
    }


def write_examples(path: Path, result: Evaluation) -> dict[str, str]:
    """Store per-example results; the same results give the same bytes. Returns the record's `examples` entry."""
    buffer = io.BytesIO()
    np.savez(  # uncompressed, with numpy's fixed time stamp: bytes depend on the content alone
        buffer,
        index=np.arange(len(result.label)),
        label=result.label,
        prediction=result.prediction,
        confidence=result.confidence,
        clean=result.clean,
        **{name: right for name, right in result.correct.items()},  # noqa: C416 - mypy: keywords
    )
    write_atomic(path, buffer.getvalue())
    return {"file": path.name, "sha256": sha256(path)}


def write_provenance(folder: Path, device: str, seconds: Mapping[str, float]) -> dict[str, Any]:
    """provenance.json beside a finished record.json: what may differ between two runs that measured the same."""
    import torch

    provenance = {
        **commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "numpy")},
        },
        "hardware": {"cpu": _processor(), "cores": os.cpu_count()}
        | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}),
        "device": device,
        "threads": torch.get_num_threads(),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "record_sha256": sha256(folder / "record.json"),
    }
    write_json(folder / "provenance.json", provenance)
    return provenance


def commit() -> dict[str, Any]:
    """Commit and dirty state of the checkout; None for both where there is no git."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
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
