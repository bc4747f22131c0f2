"""What is to be found in an image, by task: its class, a mask, boxes.

    classification   (n,) int64             0...classes−1
    segmentation     (n, h, w) uint8        the class of each pixel; VOID: none that counts
    detection        (n, m, 5) float32      (class, x1, y1, x2, y2) in pixels; rows of −1 after an image's last

So targets of all tasks are one array, and travel with the images through splits and batches.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turncoat.tasks import Task

VOID = 255  # of a mask: a pixel that belongs to no class, or outside the image
NO_BOX = -1.0


def packed(boxes: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """(n, m, 5) out of (class, x1, y1, x2, y2) rows of each image, m the most that an image has, at least one."""
    most = max([1, *(len(rows) for rows in boxes)])
    found = np.full((len(boxes), most, 5), NO_BOX, np.float32)
    for place, rows in enumerate(boxes):
        found[place, : len(rows)] = rows
    return found


def per_class(task: Task, targets: NDArray[Any], classes: int) -> list[int]:
    """How often each class is there: images of it; images that show it; boxes of it."""
    if task == "segmentation":
        return [int((targets == kind).any((1, 2)).sum()) for kind in range(classes)]
    kinds = targets[..., 0].ravel() if task == "detection" else targets
    found: list[int] = np.bincount(kinds[kinds >= 0].astype(np.int64), minlength=classes).tolist()
    return found


def faults(task: Task, targets: NDArray[Any], classes: int, size: tuple[int, int]) -> str:
    """What is wrong with masks or boxes, in words; "" where nothing is."""
    if task == "segmentation":
        beyond = sorted(set(np.unique(targets).tolist()) - set(range(classes)) - {VOID})
        return f"masks hold {', '.join(map(str, beyond[:5]))}, beyond the {classes} classes" if beyond else ""
    if task == "classification":
        return ""
    there = targets[targets[..., 0] >= 0]
    height, width = size
    corners = there[:, 1:]
    outside = (corners < 0).any(1) | (corners[:, 2] > width) | (corners[:, 3] > height)
    flat = (corners[:, 2] <= corners[:, 0]) | (corners[:, 3] <= corners[:, 1])
    wrong = there[:, 0] >= classes
    for bad, what in (
        (wrong, f"of a class beyond the {classes}"),
        (outside, "outside the image"),
        (flat, "of no area"),
    ):
        if bad.any():
            return f"{int(bad.sum())} boxes {what}, for example {np.round(corners[bad][0], 1).tolist()}"
    return ""


__all__ = ["NO_BOX", "VOID", "Task", "faults", "packed", "per_class"]
