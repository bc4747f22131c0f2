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
    folder: Path,
    images: Mapping[str, Tensor],
    predictions: Tensor,
    examples: Mapping[str, NDArray[Any]],
    info: Mapping[str, Any],
) -> None:
    """Write `<name>.npy` (n, c, h, w) float32 for each set, predictions.npy (n,) of the baseline on the clean images,
    examples.npz for the figures, and perturbed.json.
    """
    _write(folder / "predictions.npy", np.save, predictions.cpu().numpy())
    for name, adversarial in images.items():
        _write(folder / f"{name}.npy", np.save, adversarial.cpu().numpy())
    sums = {name: sha256(folder / f"{name}.npy") for name in images}
    save_examples(folder, examples, dict(info) | {"sha256": sums, "predictions": sha256(folder / "predictions.npy")})


def save_examples(folder: Path, examples: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> None:
    """Write examples.npz for the figures, and perturbed.json, which holds its checksum."""
    buffer = io.BytesIO()
    np.savez(buffer, **dict(examples))  # type: ignore[arg-type]
    write_atomic(folder / "examples.npz", buffer.getvalue())
    write_json(folder / "perturbed.json", dict(info) | {"examples": sha256(folder / "examples.npz")})


def _write(path: Path, write: Any, array: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    write(buffer, array)
    write_atomic(path, buffer.getvalue())


def load_perturbed(folder: Path) -> dict[str, Tensor]:
    """All stored sets of a folder, by name.

    Raises:
        TurncoatError: a file is missing or does not match its checksum.
    """
    sums = read_json(folder / "perturbed.json")["sha256"]
    return {name: torch.from_numpy(_read(folder / f"{name}.npy", checksum)) for name, checksum in sums.items()}


def load_predictions(folder: Path) -> NDArray[np.int64]:
    """What the baseline says to the clean images, (n,); raises as `load_perturbed`."""
    return _read(folder / "predictions.npy", read_json(folder / "perturbed.json").get("predictions"))


def load_examples(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of examples.npz, by name; raises as `load_perturbed`."""
    arrays: Any = _read(folder / "examples.npz", read_json(folder / "perturbed.json").get("examples"))
    with arrays:
        return dict(arrays)


def _read(path: Path, checksum: str | None) -> NDArray[Any]:
    if not path.exists() or sha256(path) != checksum:
        raise TurncoatError(f"{path}: missing or damaged; delete {path.parent} and run `dvc repro`")
    array: NDArray[Any] = np.load(path, allow_pickle=False)
    return array
