"""From a data set's settings to its checked splits: read what was published, split it, look for faults, measure it."""

import hashlib
import logging
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turncoat.data import annotated, folder, npz, parquet, published, scenes
from turncoat.data.pictures import listed
from turncoat.data.sources import raw_files
from turncoat.data.splits import split
from turncoat.data.store import SPLITS, Dataset, Split
from turncoat.data.targets import Task, faults, per_class
from turncoat.errors import TurncoatError
from turncoat.settings import DataSettings

READERS = {"folder": folder.read, "npz": npz.read, "parquet": parquet.read}
MAX_OVERLAP = 0.01  # share of a split; the published sets hold a few true duplicates, a mixed-up split many

log = logging.getLogger(__name__)


def prepare(name: str, settings: DataSettings, cache: Path, task: Task = "classification") -> Dataset:
    """Make the data set `name` of params.yaml.

    Args:
        settings: its `data` section. task: what its images are for.
        cache: folder for downloads; the raw files stay there, nothing else does.

    Raises:
        TurncoatError: raw files missing or wrong, sizes that do not fit, or a fault in the images or labels.
    """
    where = f"datasets.{name}.data"
    about = settings.model_dump(exclude={"source"})
    for own_to_targets in ("classes", "void"):
        if about[own_to_targets] is None:
            del about[own_to_targets]
    if settings.path is not None:
        if settings.source in READERS:
            raw = READERS[settings.source](settings.path, settings.size)
        else:
            raw = annotated.read(settings.source, settings.path, task, settings.size, settings.classes, settings.void)
        about["read"] = dict(raw.read)
        if raw.notes:
            log.warning("%s: %s", settings.path, ", ".join(f"{count:,} {note}" for note, count in raw.notes.items()))
    elif settings.source == "scenes":
        return _scenes(name, settings, task, about)
    else:
        files = raw_files(settings.source, settings.size[0] if settings.size else None)
        raw = published.read(settings.source, files, cache, settings.size, task)
        del about["path"]
        about["raw_files"] = {file.path: file.md5 for file in files}
    drawn_by = {  # no image with masks or boxes is of one class: any share of them will do
        part: whole.labels if task == "classification" else np.zeros(len(whole), np.int64)
        for part, whole in (("train", raw.train), ("validation", raw.validation), ("test", raw.test))
        if whole is not None
    }
    indices = split(
        drawn_by["train"],
        drawn_by.get("test"),
        (settings.train, settings.validation, settings.test),
        settings.split_seed,
        (f"{where}.train", f"{where}.validation", f"{where}.test"),
        drawn_by.get("validation"),
    )
    wholes = (raw.train, raw.validation or raw.train, raw.test or raw.train)
    train, validation, test = (
        Split(whole.images[chosen], whole.labels[chosen]) for whole, chosen in zip(wholes, indices, strict=True)
    )
    names = {
        part: [raw.names[part if part in raw.names else "train"][place] for place in chosen]
        for part, chosen in zip(SPLITS, indices, strict=True)
        if raw.names
    }
    return assemble(name, settings.source, raw.classes, (train, validation, test), about, names, task)


def _scenes(name: str, settings: DataSettings, task: Task, about: dict[str, Any]) -> Dataset:
    """The embedded scenes: as many as are asked for."""
    counts = (settings.train or 0, settings.validation or 0, settings.test or 0)
    side = settings.size[0] if settings.size else scenes.SIDE
    splits = scenes.made(task, counts, settings.split_seed, side)
    del about["path"]
    return assemble(name, settings.source, scenes.classes(task), splits, about, task=task)


def assemble(
    name: str,
    source: str,
    classes: tuple[str, ...],
    splits: tuple[Split, Split, Split],
    settings: dict[str, Any],
    names: Mapping[str, list[str]] | None = None,
    task: Task = "classification",
) -> Dataset:
    """Check train, validation and test and join them to a data set with its mean and standard deviation.

    Args:
        names: split -> the name of each of its images, for messages, where they have names.

    Raises:
        TurncoatError: an empty split, a label out of range, a class without training images, a constant channel, or
            more than `MAX_OVERLAP` of a split's images in another one too.
    """
    named = dict(zip(("train", "validation", "test"), splits, strict=True))
    sizes = ", ".join(f"{split_name} {len(part):,}" for split_name, part in named.items())
    for split_name, part in named.items():
        if not len(part):
            raise TurncoatError(f"{name}: the {split_name} split is empty ({sizes})")
        if len(part.images) != len(part.labels):
            raise TurncoatError(f"{name}: {split_name} has {len(part.images):,} images and {len(part):,} labels")
        if fault := faults(task, part.labels, len(classes), (part.images.shape[2], part.images.shape[3])):
            raise TurncoatError(f"{name}: {split_name}: {fault}")
        wrong = task == "classification" and int(((part.labels < 0) | (part.labels >= len(classes))).sum())
        if wrong:
            low, high = part.labels.min(), part.labels.max()
            raise TurncoatError(
                f"{name}: {wrong:,} of {len(part):,} {split_name} labels lie outside 0...{len(classes) - 1} "
                f"(smallest {low}, largest {high})"
            )
    if len(classes) < 2 and task != "detection":
        void = "; in a mask 255, and `void`, count for nothing" if task == "segmentation" else ""
        raise TurncoatError(f"{name}: one class only ({', '.join(classes)}); a classifier needs two{void}")
    absent = [
        classes[kind] for kind, times in enumerate(per_class(task, named["train"].labels, len(classes))) if not times
    ]
    if absent:
        void = "; in a mask 255, and `void`, count for nothing" if task == "segmentation" else ""
        raise TurncoatError(f"{name}: no training image of {', '.join(absent)} ({sizes}){void}")
    overlap = count_overlap(named)
    for pair, shared in overlap.items():
        smaller = min(len(named[side]) for side in pair.split("/"))
        twins = listed(" for example", _twins(named, names, pair)) if shared and names else ""
        if shared > max(1, MAX_OVERLAP * smaller):
            raise TurncoatError(
                f"{name}: {shared:,} identical images in {pair} ({sizes}), more than {MAX_OVERLAP:.0%} of the smaller "
                f"split; the splits are mixed up, or images are there twice{twins and ','}{twins}"
            )
        if shared:
            log.warning("%s: %d identical images in %s; they stay%s", name, shared, pair, twins and f",{twins}")
    mean, std = channel_statistics(named["train"].images)
    if min(std) == 0:
        raise TurncoatError(f"{name}: a channel is constant over all training images (std {std})")
    return Dataset(name, source, classes, mean, std, *splits, overlap=overlap, settings=settings, task=task)


def count_overlap(splits: dict[str, Split]) -> dict[str, int]:
    """For each pair of splits, how many images of the second are, byte for byte, in the first too."""
    digests = {name: [_digest(image) for image in part.images] for name, part in splits.items()}
    return {
        f"{first}/{second}": len([digest for digest in digests[second] if digest in known])
        for first, second in combinations(splits, 2)
        for known in [set(digests[first])]
    }


def _twins(splits: dict[str, Split], names: Mapping[str, list[str]], pair: str) -> list[str]:
    """The names of identical images in two splits."""
    first, second = pair.split("/")
    known = {_digest(image): name for name, image in zip(names[first], splits[first].images, strict=True)}
    found = (
        (known.get(_digest(image)), name) for name, image in zip(names[second], splits[second].images, strict=True)
    )
    return [f"{twin} is {name}" for twin, name in found if twin]


def _digest(image: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in units of [0, 1], from exact integer histograms."""
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        histogram = np.zeros(256, dtype=np.int64)
        for start in range(0, len(images), 4096):  # bincount widens to 8 bytes a pixel
            histogram += np.bincount(images[start : start + 4096, channel].ravel(), minlength=256)
        share = histogram / histogram.sum()
        mean = float(share @ values)
        means.append(mean)
        stds.append(float(share @ (values - mean) ** 2) ** 0.5)
    return tuple(means), tuple(stds)
