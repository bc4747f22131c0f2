"""Adversarial images made against a baseline, stored for transfer attacks and figures, with their checksums."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turncoat.errors import TurncoatError
from turncoat.files import read_json, sha256, write_atomic, write_json


def save_perturbed(
    folder: Path, images: Mapping[str, Tensor], examples: Mapping[str, NDArray[Any]], info: Mapping[str, Any]
) -> None:
    """Write `<name>.npy` (n, c, h, w) float32 for each set, examples.npz for the figures, and perturbed.json."""
    for name, adversarial in images.items():
        _write(folder / f"{name}.npy", np.save, adversarial.cpu().numpy())
    buffer = io.BytesIO()
    np.savez(buffer, **dict(examples))
    write_atomic(folder / "examples.npz", buffer.getvalue())
    sums = {name: sha256(folder / f"{name}.npy") for name in images}
    write_json(folder / "perturbed.json", dict(info) | {"sha256": sums})


def _write(path: Path, write: Any, array: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    write(buffer, array)
    write_atomic(path, buffer.getvalue())


def load_perturbed(folder: Path) -> dict[str, Tensor]:
    """All stored sets of a folder, by name.

    Raises:
        TurncoatError: a file is missing or does not match its checksum.
    """
    loaded = {}
    for name, checksum in read_json(folder / "perturbed.json")["sha256"].items():
        path = folder / f"{name}.npy"
        if not path.exists() or sha256(path) != checksum:
            raise TurncoatError(f"{path}: missing or damaged; delete {folder} and run `dvc repro`")
        loaded[name] = torch.from_numpy(np.load(path))
    return loaded
