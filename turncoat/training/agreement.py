"""What a network finds against what is there: counted by torchmetrics (masks) and by COCO's own code (boxes)."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turncoat.data.targets import VOID, Task
from turncoat.overlap import PRIMARY, THRESHOLDS, Matches, average_precision, iou, mean, pixel_accuracy


def confusions(found: Tensor, masks: Tensor, classes: int) -> NDArray[np.int64]:
    """Pixels of class i that were given class j, of each image: (n, classes, classes). Void pixels count nowhere.

    Args: found, masks: (n, h, w) integers.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    pairs = zip(found.long(), masks.long(), strict=True)
    tables = [multiclass_confusion_matrix(one, mask, classes, ignore_index=VOID) for one, mask in pairs]
    return torch.stack(tables).cpu().numpy().astype(np.int64)


def matches(found: Sequence[Mapping[str, Tensor]], targets: Tensor, classes: int) -> Matches:
    """Detections matched to boxes by COCO's rules, image by image, 100 of an image at most.

    Args:
        found: `boxes` (d, 4), `scores` (d,), `labels` (d,) of each image. targets: (n, m, 5).
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = [target[target[:, 0] >= 0].cpu().double().numpy() for target in targets]
    truth = np.stack([np.bincount(row[:, 0].astype(int), minlength=classes) for row in rows]).astype(np.int64)
    boxes: list[dict[str, Any]] = [
        {"image_id": place, "category_id": int(kind), **_box(x1, y1, x2, y2), "iscrowd": 0}
        for place, row in enumerate(rows)
        for kind, x1, y1, x2, y2 in row
    ]
    said = [
        {"image_id": place, "category_id": int(kind), "score": float(score), **_box(*box)}
        for place, one in enumerate(found)
        for box, score, kind in zip(*(one[name].cpu().tolist() for name in ("boxes", "scores", "labels")), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of its progress
        there, here = COCO(), COCO()
        about = {
            "images": [{"id": place} for place in range(len(rows))],
            "categories": [{"id": kind} for kind in range(classes)],
        }
        for index, annotations in ((there, boxes), (here, said)):
            numbered = [one | {"id": number} for number, one in enumerate(annotations, 1)]  # 0 is its word for none
            index.dataset = about | {"annotations": numbered}
            index.createIndex()
        judge = COCOeval(there, here, "bbox")
        judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = [[0, 1e10]], ["all"], [100]
        judge.evaluate()
    met = [one for one in judge.evalImgs if one and one["dtScores"]]
    counts = [len(one["dtScores"]) for one in met]
    right = [np.asarray(one["dtMatches"]).T > 0 for one in met]
    return Matches(
        np.repeat([one["image_id"] for one in met], counts).astype(np.int64),
        np.repeat([one["category_id"] for one in met], counts).astype(np.int64),
        np.concatenate([one["dtScores"] for one in met] or [[]]).astype(np.float32),
        np.concatenate(right or [np.empty((0, len(THRESHOLDS)), bool)]),
        truth,
    )


def _box(x1: float, y1: float, x2: float, y2: float) -> dict[str, Any]:
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}


def counted(task: Task, found: Sequence[Any], targets: Tensor, classes: int) -> NDArray[np.int64] | Matches:
    """What a record keeps of batches of findings (`Segmenter.found`, `Detector.found`)."""
    if task == "segmentation":
        return confusions(torch.cat(list(found)), targets, classes)
    return matches([one for batch in found for one in batch], targets, classes)


def measures(counts: NDArray[np.int64] | Matches) -> dict[str, float]:
    """Shares in [0, 1]: `miou` and `pixel-accuracy` of masks, `ap`, `ap50` and `ap75` of boxes."""
    if not isinstance(counts, Matches):
        return {"miou": float(mean(iou(counts))), "pixel-accuracy": float(pixel_accuracy(counts))}
    found = average_precision(counts)
    return {
        "ap": float(mean(found.ravel())),
        "ap50": float(mean(found[:, 0])),
        "ap75": float(mean(found[:, 5])),
    }


def by_class(counts: NDArray[np.int64] | Matches) -> list[float | None]:
    """IoU, or average precision over all thresholds, of each class; None where it is not there."""
    found = average_precision(counts).mean(1) if isinstance(counts, Matches) else iou(counts)
    return [None if np.isnan(value) else float(value) for value in found]


__all__ = ["PRIMARY", "by_class", "confusions", "counted", "matches", "measures"]
