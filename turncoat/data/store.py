"""A data set on disk: plain uint8 arrays and one JSON that says what they are and what their checksums must be.

`data/<dataset>/{train,validation,test}_{images,labels}.npy` with `dataset.json`.  The folder appears whole or not at
all, its bytes depend on the settings alone, and `load` believes nothing that its checksum does not confirm.
"""

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turncoat.data.targets import Task, per_class
from turncoat.errors import TurncoatError
from turncoat.files import read_json, sha256, write_json

SPLITS = ("train", "validation", "test")
KINDS = ("images", "labels")


@dataclass(frozen=True)
class Split:
    """Images (n, C, H, W) uint8 in 0...255 and labels (n,) int64 in 0...classes−1, or the targets of another task."""

    images: NDArray[np.uint8]
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set, split.

    Attributes:
        name: its name in params.yaml.
        source: where the images come from (`sources.SOURCES`).
        mean, std: per channel of the training images, in units of [0, 1].
        overlap: "train/test" and so on -> images of the second split that are, byte for byte, in the first too.
        settings: the `DataSettings` it was made with, and the raw files (name -> md5).
        task: what its labels are (`turncoat.data.targets`).
    """

    name: str
    source: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split
    validation: Split
    test: Split
    overlap: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    task: Task = "classification"

    @property
    def splits(self) -> dict[str, Split]:
        return {name: getattr(self, name) for name in SPLITS}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def counts(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Images of each split, and of each of its classes in order (images that show it; boxes)."""
    return {
        name: {"images": len(split), "per_class": per_class(dataset.task, split.labels, len(dataset.classes))}
        for name, split in dataset.splits.items()
    }


def save(dataset: Dataset, folder: Path | str) -> None:
    """Write `dataset` to `folder`, replacing what is there; written beside it and renamed when whole.

    Raises:
        TurncoatError: the disk is full; what was there before is untouched.
    """
    folder = Path(folder)
    new, old = (folder.with_name(f".{folder.name}.{age}") for age in ("new", "old"))
    arrays = {
        f"{name}_{kind}": np.ascontiguousarray(getattr(split, kind))
        for name, split in dataset.splits.items()
        for kind in KINDS
    }
    needed = sum(array.nbytes for array in arrays.values())
    shutil.rmtree(new, ignore_errors=True)  # of a killed process
    try:
        new.mkdir(parents=True)
        for name, array in arrays.items():
            with open(new / f"{name}.npy", "wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        write_json(
            new / "dataset.json",
            {
                "name": dataset.name,
                "source": dataset.source,
                **({"task": dataset.task} if dataset.task != "classification" else {}),
                "settings": dict(dataset.settings),
                "classes": list(dataset.classes),
                "shape": list(dataset.shape),
                "counts": counts(dataset),
                "overlap": dict(dataset.overlap),
                "mean": list(dataset.mean),
                "std": list(dataset.std),
                "sha256": {name: sha256(new / f"{name}.npy") for name in arrays},
            },
        )
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, None):  # numpy's own "240000 requested and 233344 written" has no number
            raise
        free = shutil.disk_usage(folder.parent).free
        raise TurncoatError(f"{folder}: the disk is full; {needed:,} bytes needed, {free:,} free") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def load(folder: Path | str) -> Dataset:
    """Read a data set; its arrays are memory-mapped and read-only.

    Raises:
        TurncoatError: it is missing, incomplete, or an array differs from its checksum.
    """
    folder = Path(folder)
    remedy = f"run `dvc repro --force download@{folder.name}` to make it anew"
    about = read_json(folder / "dataset.json")
    try:
        splits = {
            name: Split(
                *(_array(folder / f"{name}_{kind}.npy", about["sha256"][f"{name}_{kind}"], remedy) for kind in KINDS)
            )
            for name in SPLITS
        }
        return described(about, splits)
    except (KeyError, TypeError) as error:
        raise TurncoatError(f"{folder / 'dataset.json'}: {error} is missing or malformed; {remedy}") from error


def described(about: Mapping[str, Any], splits: Mapping[str, Split]) -> Dataset:
    """The data set of these splits that `about`, the content of a dataset.json, is of."""
    return Dataset(
        name=about["name"],
        source=about["source"],
        classes=tuple(about["classes"]),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        overlap=about["overlap"],
        settings=about["settings"],
        task=about.get("task", "classification"),
        **splits,
    )


def _array(path: Path, checksum: str, remedy: str) -> NDArray[Any]:
    if not path.is_file():
        raise TurncoatError(f"{path}: missing; {remedy}")
    if sha256(path) != checksum:
        raise TurncoatError(f"{path}: differs from its checksum in dataset.json; {remedy}")
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:  # no array, or a pickled one
        raise TurncoatError(f"{path}: refused, {error}; {remedy}") from error
    return array
