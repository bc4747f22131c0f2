"""mIoU and average precision against torchmetrics, COCO's accumulation and a computation of their own definition."""

import numpy as np
import pytest
import torch

from tests.dense.small import scenes, split_of
from turncoat.data.targets import VOID
from turncoat.overlap import average_precision, iou, mean, pixel_accuracy, precision_curve
from turncoat.training.agreement import by_class, confusions, counted, matches, measures


def masks(seed=0):
    """Masks and what was found, half of it right."""
    source = torch.Generator().manual_seed(seed)
    truth = torch.tensor(scenes("segmentation").test.labels)
    found = torch.where(
        torch.rand(truth.shape, generator=source) < 0.6, truth, torch.randint(0, 11, truth.shape, generator=source)
    )
    truth = torch.where(torch.rand(truth.shape, generator=source) < 0.1, VOID, truth)
    return found.to(torch.uint8), truth.to(torch.uint8)


def detections(seed=0):
    """Boxes near the true ones, some of another class, and some of nothing."""
    source = torch.Generator().manual_seed(seed)
    targets = torch.tensor(scenes("detection").test.labels)
    found = []
    for target in targets:
        rows = target[target[:, 0] >= 0]
        boxes = rows[:, 1:] + torch.randn(len(rows), 4, generator=source)
        labels = torch.where(torch.rand(len(rows), generator=source) < 0.2, 3, rows[:, 0].long())
        corner = torch.rand(2, 2, generator=source) * 20
        more = torch.cat([corner, corner + 6], 1)
        found.append(
            {
                "boxes": torch.cat([boxes, more]),
                "scores": torch.rand(len(rows) + 2, generator=source),
                "labels": torch.cat([labels, torch.randint(0, 10, (2,), generator=source)]),
            }
        )
    return found, targets


def test_iou_is_torchmetrics_own_and_that_of_its_definition():
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    found, truth = masks()
    table = confusions(found, truth, 11)
    assert table.shape == (len(truth), 11, 11)
    there = truth != VOID
    for kind, value in enumerate(iou(table)):
        both = ((found == kind) & (truth == kind) & there).sum()
        either = (((found == kind) | (truth == kind)) & there).sum()
        assert value == pytest.approx(float(both / either))
    library = MulticlassJaccardIndex(11, average="none", ignore_index=VOID)(found.long(), truth.long())
    np.testing.assert_allclose(iou(table), library.numpy(), rtol=1e-6)
    whole = MulticlassAccuracy(11, average="micro", ignore_index=VOID)(found.long(), truth.long())
    told = measures(counted("segmentation", [found[:5], found[5:]], truth, 11))
    assert told["pixel-accuracy"] == pytest.approx(float(whole), rel=1e-6)
    assert told["miou"] == pytest.approx(float(np.mean(iou(table))))
    assert by_class(table)[4] == pytest.approx(float(iou(table)[4]))


def test_average_precision_is_cocos_and_near_torchmetrics():
    """torchmetrics reads precision off at recalls in float32, which moves a few of them by one place."""
    from torchmetrics.detection import MeanAveragePrecision

    found, targets = detections()
    told = measures(matches(found, targets, 10))
    library = MeanAveragePrecision()
    library.update(
        found,
        [{"boxes": row[row[:, 0] >= 0][:, 1:], "labels": row[row[:, 0] >= 0][:, 0].long()} for row in targets],
    )
    theirs = library.compute()
    for mine, name in (("ap", "map"), ("ap50", "map_50"), ("ap75", "map_75")):
        assert told[mine] == pytest.approx(float(theirs[name]), abs=2e-3)
    assert told["ap"] == pytest.approx(coco(found, targets), abs=1e-9)


def coco(found, targets):
    """AP by pycocotools, evaluation and accumulation its own."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def annotated(rows, scored):
        made = COCO()
        made.dataset = {
            "images": [{"id": n} for n in range(len(targets))],
            "categories": [{"id": n} for n in range(10)],
        }
        made.dataset["annotations"] = [
            {"id": n, "image_id": image, "category_id": kind, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0,
             "area": (x2 - x1) * (y2 - y1), **({"score": score} if scored else {})}
            for n, (image, kind, score, x1, y1, x2, y2) in enumerate(rows, 1)
        ]  # fmt: skip
        made.createIndex()
        return made

    with contextlib.redirect_stdout(io.StringIO()):
        truth = [
            (image, int(row[0]), 0, *row[1:].tolist())
            for image, target in enumerate(targets)
            for row in target
            if row[0] >= 0
        ]
        said = [
            (image, int(kind), float(score), *box.tolist())
            for image, one in enumerate(found)
            for kind, score, box in zip(one["labels"], one["scores"], one["boxes"], strict=True)
        ]
        judge = COCOeval(annotated(truth, False), annotated(said, True), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats[0]


def test_weights_of_images_are_images_repeated():
    found, targets = detections()
    once = matches(found, targets, 10)
    weights = np.random.RandomState(0).multinomial(len(targets), np.full(len(targets), 1 / len(targets)), 3)
    places = [np.repeat(np.arange(len(targets)), times) for times in weights]
    drawn = average_precision(once, weights.astype(float))
    for row, chosen in zip(drawn, places, strict=True):
        again = matches([found[place] for place in chosen], targets[chosen], 10)
        np.testing.assert_allclose(row, average_precision(again), atol=0.02)  # ties of equal scores fall otherwise
    table = confusions(*masks(), 11)
    for one, chosen in zip(weights.astype(float), places, strict=True):
        np.testing.assert_allclose(iou(table, one[None])[0], iou(table[chosen]))
        np.testing.assert_allclose(pixel_accuracy(table, one[None])[0], pixel_accuracy(table[chosen]))


def test_perfect_and_empty_findings():
    targets = split_of("detection", "test").labels
    rows = [target[target[:, 0] >= 0] for target in targets]
    perfect = [{"boxes": row[:, 1:], "scores": torch.ones(len(row)), "labels": row[:, 0].long()} for row in rows]
    assert measures(matches(perfect, targets, 10)) == {"ap": 1.0, "ap50": 1.0, "ap75": 1.0}
    assert precision_curve(matches(perfect, targets, 10)).tolist() == [1.0] * 101
    none = [{"boxes": torch.empty(0, 4), "scores": torch.empty(0), "labels": torch.empty(0).long()} for _ in rows]
    assert measures(matches(none, targets, 10)) == {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
    truth = split_of("segmentation", "test").labels
    assert measures(confusions(truth, truth, 11)) == {"miou": 1.0, "pixel-accuracy": 1.0}
    assert float(mean(np.array([0.5, np.nan, 1.0]))) == 0.75
