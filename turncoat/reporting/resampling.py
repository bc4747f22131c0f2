"""Intervals for mIoU and average precision, which are no mean over images: by bootstrap over them.

Images are drawn anew, the same ones for both arms and all seeds. Out of how far that moves one seed's value, and how
far the mean over seeds, comes the same split of the variance that statistics.py has from the two-way table: what is
the images' own, and what is of a seed on an image. The rest, degrees of freedom and quantiles, is `Mean`'s.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from turncoat.errors import TurncoatError
from turncoat.overlap import PRIMARY, Matches, average_precision, iou, mean, pixel_accuracy
from turncoat.reporting.cell import Cell
from turncoat.reporting.statistics import Mean
from turncoat.reporting.study import Study, examples

DRAWS = 400  # of the bootstrap: they tell a standard error to 4 %
Array = npt.NDArray[np.float64]


def single(study: Study, cells: Sequence[Cell], metric: str) -> Mean | None:
    """A measure of one arm over its seeds, a share; None where some cell kept nothing to draw from."""
    return _mean([found for cell in cells if (found := _drawn(study, cell, metric))], len(cells))


def paired(study: Study, left: Sequence[Cell], right: Sequence[Cell], metric: str, against_metric: str) -> Mean | None:
    """The first arm's measure minus the second's, seed by seed on the same drawn images.

    Raises:
        TurncoatError: the two met other images.
    """
    pairs = [
        (mine, theirs)
        for one, other in zip(left, right, strict=True)
        if (mine := _drawn(study, one, metric)) and (theirs := _drawn(study, other, against_metric))
    ]
    for one, other in zip(left, right, strict=True) if pairs else ():
        if not same_images(study, one, other):
            raise TurncoatError(f"{study.path(other)}: other test images than {one}; run `{study.command(other)}`")
    return _mean([(mine[0] - theirs[0], mine[1] - theirs[1], mine[2]) for mine, theirs in pairs], len(left))


def _mean(found: Sequence[tuple[float, Array, int]], wanted: int) -> Mean | None:
    """Out of (value, values on drawn images, number of images) of each seed."""
    if not found or len(found) < wanted:
        return None
    seeds = len(found)
    values, drawn = np.array([value for value, _, _ in found]), np.stack([draws for _, draws, _ in found])
    alone, together = float(drawn.var(1, ddof=1).mean()), float(drawn.mean(0).var(ddof=1))
    # alone = images + rest, together = images + rest / seeds
    rest = max(alone - together, 0.0) / (1 - 1 / seeds) if seeds > 1 else 0.0
    of_images = max(together - rest / seeds, 0.0)
    of_seeds = float(values.var(ddof=1)) / seeds if seeds > 1 else 0.0
    return Mean(float(values.mean()), of_seeds, of_images, seeds, found[0][2])


def _drawn(study: Study, cell: Cell, metric: str) -> tuple[float, Array, int] | None:
    """A cell's measure, the same on drawn images, and how many images there are."""
    record = study.records[cell]
    task = record.task
    name, condition = _named(metric, PRIMARY[task], list(record.best.attacks))
    path = study.path(cell, "examples.npz")
    if not path.exists():
        return None
    study.check_examples(cell)
    values = _resampled(str(path), record.examples["sha256"], name, condition)
    count = record.best.count(metric)
    return (count.accuracy, values[0], values[1]) if count and values else None


def _named(metric: str, primary: str, attacks: Sequence[str]) -> tuple[str, str]:
    """`clean` is the task's own measure, an attack's name the same under it, `ap50-pgd-20` another one."""
    if metric in ("clean", *attacks):
        return primary, metric
    after = next((name for name in attacks if metric.endswith(f"-{name}")), "")
    return (metric.removesuffix(f"-{after}"), after) if after else (metric, "clean")


@lru_cache(maxsize=4096)
def _resampled(path: str, checksum: str, name: str, condition: str) -> tuple[Array, int] | None:
    if name in ("ap", "ap50", "ap75"):
        found = _precisions(path, checksum, condition)
        if found is None:
            return None
        chosen = {"ap": slice(None), "ap50": slice(0, 1), "ap75": slice(5, 6)}[name]
        return mean(found[0][:, :, chosen].reshape(DRAWS, -1)), found[1]
    arrays = examples(path, checksum)
    if (confusion := arrays.get(f"confusion {condition}")) is None:
        return None
    weights = drawn_weights(len(confusion))
    return mean(iou(confusion, weights)) if name == "miou" else pixel_accuracy(confusion, weights), len(confusion)


@lru_cache(maxsize=1024)
def _precisions(path: str, checksum: str, condition: str) -> tuple[Array, int] | None:
    """(draws, classes, thresholds), and how many images there are."""
    found = matches(path, checksum, condition)
    return (average_precision(found, drawn_weights(len(found.truth))), len(found.truth)) if found else None


def found_in(study: Study, cell: Cell, condition: str) -> Matches | None:
    """The detections of a cell; None where it kept none. Raises as `Study.check_examples`."""
    path = study.path(cell, "examples.npz")
    if not path.exists():
        return None
    study.check_examples(cell)
    return matches(str(path), study.records[cell].examples["sha256"], condition)


def same_images(study: Study, one: Cell, other: Cell) -> bool:
    """Whether two cells met images with the same targets: as many boxes or pixels of each class in each of them."""
    told = []
    for cell in (one, other):
        study.check_examples(cell)
        arrays = examples(str(study.path(cell, "examples.npz")), study.records[cell].examples["sha256"])
        told.append(arrays["truth"] if "truth" in arrays else arrays["confusion clean"].sum(2))
    return np.array_equal(told[0], told[1])


def matches(path: str, checksum: str, condition: str) -> Matches | None:
    """What a cell kept of its detections; None where it kept none."""
    arrays = examples(path, checksum)
    if f"kind {condition}" not in arrays:
        return None
    parts = [arrays[f"{name} {condition}"] for name in ("image", "kind", "score", "right")]
    return Matches(parts[0].astype(np.int64), parts[1].astype(np.int64), parts[2], parts[3], arrays["truth"])


@lru_cache(maxsize=64)
def drawn_weights(images: int) -> Array:
    """How often each image counts in each draw, (draws, images): the same for every arm, so that pairs are pairs."""
    draw = np.random.RandomState(0)
    return draw.multinomial(images, np.full(images, 1 / images), DRAWS).astype(np.float64)
