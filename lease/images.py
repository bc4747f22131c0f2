"""A data set in two halves of lossless WebP, so that CIFAR-10 travels in half of its bytes, in two calls.

A half holds every second image of each split, in strips of 500 images side by side, and their labels. Together they
give the arrays back byte for byte: `turncoat.data.load` compares their checksums.
"""

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from turncoat import data
from turncoat.data.store import SPLITS, Dataset, Split, described
from turncoat.errors import TurncoatError
from turncoat.files import read_json, write_json

STRIP = 500  # images
Pixels = NDArray[np.uint8]


def pack(folder: Path, into: Path) -> list[int]:
    """Write half-1 and half-2 of the data set in `folder` below `into`; their bytes."""
    dataset = data.load(folder)
    sizes = []
    for half in (1, 2):
        shutil.rmtree(into / f"half-{half}", ignore_errors=True)
        for name, split in dataset.splits.items():
            place = into / f"half-{half}" / name
            place.mkdir(parents=True)
            images = split.images[half - 1 :: 2]
            for number, start in enumerate(range(0, len(images), STRIP)):
                strip(images[start : start + STRIP]).save(
                    place / f"{number:03}.webp", lossless=True, quality=100, method=4
                )
            np.save(place / "labels.npy", split.labels[half - 1 :: 2].astype(np.uint16))
        write_json(into / f"half-{half}" / "shape.json", list(dataset.shape))
        shutil.copy(folder / "dataset.json", into / f"half-{half}")
        sizes.append(sum(path.stat().st_size for path in (into / f"half-{half}").rglob("*") if path.is_file()))
    return sizes


def strip(images: Pixels) -> Image.Image:
    """Images (n, C, H, W), one below the other, as RGB; grey ones three times over."""
    column = images.transpose(0, 2, 3, 1).reshape(-1, images.shape[3], images.shape[1])
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(column, (*column.shape[:2], 3))))


def unpacked(folder: Path, shape: tuple[int, int, int]) -> Pixels:
    """The images (n, C, H, W) of the strips in a folder."""
    columns = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.webp"))]
    channels, height, width = shape
    every = np.concatenate(columns).reshape(-1, height, width, 3)[..., :channels]
    return np.ascontiguousarray(every.transpose(0, 3, 1, 2))


def half(source: Path, number: int) -> dict[str, Split]:
    """The splits of one half below `source`.

    Raises:
        TurncoatError: it did not travel.
    """
    folder = source / f"half-{number}"
    if not (folder / "shape.json").is_file():
        raise TurncoatError(f"{folder}: not here; it travels with call {number} (lease/README.md)")
    channels, height, width = read_json(folder / "shape.json")
    return {
        name: Split(
            unpacked(folder / name, (channels, height, width)), np.load(folder / name / "labels.npy").astype(np.int64)
        )
        for name in SPLITS
    }


def first(source: Path, target: Path) -> Dataset:
    """The first half as a data set of its own in `target`: enough to measure speeds with."""
    dataset = described(read_json(source / "half-1" / "dataset.json"), half(source, 1))
    data.save(dataset, target)
    return dataset


def both(source: Path, target: Path) -> Dataset:
    """Both halves as the data set that was packed, in `target`.

    Raises:
        TurncoatError: a half is missing, or the arrays are not those that were packed.
    """
    halves = [half(source, number) for number in (1, 2)]
    target.mkdir(parents=True, exist_ok=True)
    for name in SPLITS:
        for kind in ("images", "labels"):
            one, two = (getattr(part[name], kind) for part in halves)
            whole = np.empty((len(one) + len(two), *one.shape[1:]), one.dtype)
            whole[0::2], whole[1::2] = one, two
            np.save(target / f"{name}_{kind}.npy", whole, allow_pickle=False)
    shutil.copy(source / "half-1" / "dataset.json", target)
    return data.load(target)
