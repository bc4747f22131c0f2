"""How far masks and boxes agree with the truth, out of what is counted image by image; an image may count repeatedly.

Segmentation: the confusion of each image, (n, classes, classes), pixels of class i that were given class j. Detection:
`Matches`. Both are what a record keeps, so that other images can be imagined (the bootstrap of turncoat.reporting).
Measures are shares in [0, 1]. Nothing here needs torch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PRIMARY = {"segmentation": "miou", "detection": "ap"}  # of each task, the measure that networks are compared by
Array = NDArray[np.float64]
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of COCO: the IoU from which a box is right
RECALLS = np.linspace(0, 1, 101)  # at which COCO reads precision off


def iou(confusion: NDArray[np.generic], weights: Array | None = None) -> Array:
    """Intersection over union of each class over all images together; nan where a class is in neither.

    Args:
        confusion: (n, k, k). weights: (draws, n), how often each image counts; None: once.

    Returns: (k,), or (draws, k).
    """
    total = _weighted(confusion, weights)
    both = np.diagonal(total, axis1=-2, axis2=-1)
    either = total.sum(-1) + total.sum(-2) - both
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(both / either)


def pixel_accuracy(confusion: NDArray[np.generic], weights: Array | None = None) -> Array:
    """Share of right pixels over all images together: a number, or (draws,)."""
    total = _weighted(confusion, weights)
    return np.asarray(np.trace(total, axis1=-2, axis2=-1) / total.sum((-2, -1)))


def mean(values: Array) -> Array:
    """Mean over the last axis, over classes that are there."""
    there = ~np.isnan(values)
    return np.asarray(np.where(there, values, 0).sum(-1) / np.maximum(there.sum(-1), 1))


def _weighted(counts: NDArray[np.generic], weights: Array | None) -> Array:
    plain = counts.astype(np.float64)
    return plain.sum(0) if weights is None else np.tensordot(weights, plain, 1)


@dataclass(frozen=True)
class Matches:
    """All detections on some images, d of them, and the boxes that are there.

    Attributes:
        image, kind: (d,) int64, which image and class each is of. score: (d,) float32.
        right: (d, thresholds) bool, whether it is matched to a box, as COCO matches them, at each of `THRESHOLDS`.
        truth: (n, classes) int64, boxes of each image and class.
    """

    image: NDArray[np.int64]
    kind: NDArray[np.int64]
    score: NDArray[np.float32]
    right: NDArray[np.bool_]
    truth: NDArray[np.int64]


def average_precision(found: Matches, weights: Array | None = None) -> Array:
    """COCO's average precision of each class at each threshold, (classes, thresholds), or (draws, classes, thresholds).

    Precision is made to fall with recall and read off at 101 recalls; nan where no box of a class counts.

    Args: weights: (draws, n), how often each image counts; None: once.
    """
    counted = np.ones((1, len(found.truth))) if weights is None else weights
    kinds = found.truth.shape[1]
    result = np.full((len(counted), kinds, len(THRESHOLDS)), np.nan)
    for kind in range(kinds):
        there = counted @ found.truth[:, kind]
        mine = np.flatnonzero(found.kind == kind)
        mine = mine[np.argsort(-found.score[mine], kind="stable")]
        times = counted[:, found.image[mine]]
        seen = np.cumsum(times, 1)
        for place in range(len(THRESHOLDS)):
            right = np.flatnonzero(found.right[mine, place])  # only there recall rises, and precision is highest
            result[:, kind, place] = _area(np.cumsum(times[:, right], 1), seen[:, right], there)
    return result[0] if weights is None else result


def _area(right: Array, seen: Array, there: Array) -> Array:
    """(draws,) from the right detections, and all, up to each right one, (draws, d), and how many boxes there are."""
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / there[:, None]
    precision = right / np.maximum(seen, 1)
    falling = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    first = np.diff(np.searchsorted(RECALLS, recall, side="right"), axis=1, prepend=0)  # recalls reached here first
    return np.where(there > 0, (falling * first).sum(1) / len(RECALLS), np.nan)


def precision_curve(found: Matches, threshold: int = 0) -> Array:
    """Precision at the 101 recalls, the mean over classes that are there, at one of `THRESHOLDS`: (101,)."""
    curves = []
    for kind in range(found.truth.shape[1]):
        if not (there := found.truth[:, kind].sum()):
            continue
        mine = np.flatnonzero(found.kind == kind)
        right = found.right[mine[np.argsort(-found.score[mine], kind="stable")], threshold]
        hits = np.cumsum(right)
        falling = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
        curves.append(np.append(falling, 0.0)[np.searchsorted(hits / there, RECALLS)])
    return np.asarray(np.mean(curves, axis=0))
