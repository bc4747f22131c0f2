"""Folders of images with masks or boxes: three layouts read alike, and each fault told in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from turncoat.data.prepare import prepare
from turncoat.errors import TurncoatError
from turncoat.settings import DataSettings

COUNTS = {"train": 6, "val": 3, "test": 4}
BOX = (4, 6, 20, 14)  # x1, y1, x2, y2 of a bright patch
XML = """<annotation><size><width>{w}</width><height>{h}</height></size><object><name>{kind}</name>
<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object></annotation>"""


def picture(number, size=(24, 32)):
    """(h, w, 3) noise with a bright patch, which is the object."""
    pixels = np.random.RandomState(number).randint(0, 90, (*size, 3), dtype=np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] += 120
    return pixels


def kind(number):
    return ("cat", "dog")[number % 2]


def masks(root):
    """CamVid's layout."""
    number = 0
    for split, count in COUNTS.items():
        for folder in (root / split, root / f"{split}annot"):
            folder.mkdir(parents=True)
        for _ in range(count):
            Image.fromarray(picture(number)).save(root / split / f"{number}.png")
            mask = np.zeros((24, 32), np.uint8)
            mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1 + number % 2
            mask[0] = 9
            Image.fromarray(mask).save(root / f"{split}annot" / f"{number}.png")
            number += 1
    return root


def voc(root):
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    number = 0
    for split, count in COUNTS.items():
        stems = [f"image{number + place}" for place in range(count)]
        for folder in ("Main", "Segmentation"):
            (root / "ImageSets" / folder / f"{split}.txt").write_text("\n".join(stems))
        for stem in stems:
            Image.fromarray(picture(number)).save(root / "JPEGImages" / f"{stem}.png")
            x1, y1, x2, y2 = BOX
            told = XML.format(w=32, h=24, kind=kind(number), x1=x1 + 1, y1=y1 + 1, x2=x2, y2=y2)
            (root / "Annotations" / f"{stem}.xml").write_text(told)
            mask = np.zeros((24, 32), np.uint8)
            mask[y1:y2, x1:x2] = 1 + number % 2
            image = Image.fromarray(mask).convert("P")
            image.putdata(mask.ravel().tolist())
            image.save(root / "SegmentationClass" / f"{stem}.png")
            number += 1
    return root


def coco(root):
    (root / "annotations").mkdir(parents=True)
    number = 0
    for split, count in COUNTS.items():
        (root / split).mkdir()
        images, boxes = [], []
        for _ in range(count):
            Image.fromarray(picture(number)).save(root / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "height": 24, "width": 32})
            x1, y1, x2, y2 = BOX
            boxes.append(
                {"id": number, "image_id": number, "category_id": 10 + number % 2, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            )
            number += 1
        kinds = [{"id": 10, "name": "cat"}, {"id": 11, "name": "dog"}]
        told = {"images": images, "annotations": boxes, "categories": kinds}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(told))
    return root


def made(source, root, task, **settings):
    return prepare("own", DataSettings(source=source, path=str(root), **settings), Path(), task)


@pytest.mark.parametrize(("source", "lay"), [("voc", voc), ("coco", coco)])
def test_boxes_of_both_layouts_are_the_same(source, lay, tmp_path):
    data = made(source, lay(tmp_path / "set"), "detection")
    assert data.classes == ("cat", "dog")
    assert [len(split) for split in data.splits.values()] == [6, 3, 4]
    assert sorted(rows[0].tolist() for rows in data.train.labels) == [[0, *BOX]] * 3 + [[1, *BOX]] * 3
    x1, y1, x2, y2 = BOX
    for image in data.test.images:
        inside = image[:, y1:y2, x1:x2].astype(int)
        assert inside.min() >= 120
        assert image.astype(int).sum() - inside.sum() < 90 * (image.size - inside.size)
    half = made(source, tmp_path / "set", "detection", image_size=[12, 32])
    assert half.shape == (3, 12, 32)
    assert half.train.labels[0, 0, 1:].tolist() == [4, 3, 20, 7]


@pytest.mark.parametrize(("source", "lay"), [("masks", masks), ("voc", voc)])
def test_masks_of_both_layouts_are_the_same(source, lay, tmp_path):
    settings = {"void": 9, "classes": ["ground", "cat", "dog"]}
    data = made(source, lay(tmp_path / "set"), "segmentation", **settings)
    x1, y1, x2, y2 = BOX
    assert sorted(np.unique(mask[y1:y2, x1:x2]).tolist() for mask in data.train.labels) == [[1]] * 3 + [[2]] * 3
    assert set(np.unique(data.train.labels[0, :y1])) == ({0, 255} if source == "masks" else {0})
    half = made(source, tmp_path / "set", "segmentation", image_size=[12, 16], **settings)
    assert half.train.labels.shape == (6, 12, 16)
    assert set(np.unique(half.train.labels)) <= {0, 1, 2, 255}


def test_data_that_is_not_split_is_drawn_by_the_seed(tmp_path):
    root = voc(tmp_path / "set")
    shutil.rmtree(root / "ImageSets")
    first, again = (made("voc", root, "detection", validation=3, test=4) for _ in range(2))
    other = made("voc", root, "detection", validation=3, test=4, split_seed=1)
    assert [len(split) for split in first.splits.values()] == [6, 3, 4]
    assert np.array_equal(first.test.images, again.test.images)
    assert not np.array_equal(first.test.images, other.test.images)


def break_mask(root, change):
    path = root / "trainannot" / "0.png"
    mask = np.asarray(Image.open(path)).copy()
    Image.fromarray(change(mask)).save(path)


FAULTS = [
    ("masks", lambda root: (root / "trainannot/0.png").unlink(), r"no mask of 1 of its images; add .*:\n  0.png"),
    ("masks", lambda root: (root / "train/0.png").unlink(), r"trainannot: 1 without an image; .*:\n  0.png"),
    ("masks", lambda root: (root / "trainannot/0.png").write_bytes(b"x"), r"0.png: the mask cannot be read"),
    ("masks", lambda root: break_mask(root, lambda mask: mask[:9]), r"0.png: 9×32 pixels for an image of 24×32"),
    ("masks", lambda root: break_mask(root, lambda mask: mask + 3), r"in 1 of 13 masks; name .*:\n.*0.png: 3, 4, 12"),
    ("masks", lambda root: shutil.copy(root / "trainannot/0.png", root / "trainannot/0.bmp"),
     r"0.bmp and 0.png are masks of one image"),
    ("masks", lambda root: shutil.rmtree(root / "trainannot"), r"trainannot: no such folder; it holds the masks"),
    ("masks", lambda root: Image.fromarray(picture(0)).save(root / "trainannot/0.png"), r"one class number a pixel"),
    ("masks", lambda root: (root / "train/0.png").write_bytes(b"x"), r"images cannot be used; mend or remove"),
]  # fmt: skip


@pytest.mark.fault(36, "masks missing, damaged, of another size, with labels beyond the classes", "one line each")
@pytest.mark.parametrize(("source", "harm", "told"), FAULTS)
def test_faults_of_masks_are_told(source, harm, told, tmp_path):
    root = masks(tmp_path / "set")
    harm(root)
    with pytest.raises(TurncoatError, match=told):
        made(source, root, "segmentation", void=9, classes=["ground", "cat", "dog"])


def with_box(**change):
    def harm(root):
        x1, y1, x2, y2 = BOX
        values = {"w": 32, "h": 24, "kind": "cat", "x1": x1, "y1": y1, "x2": x2, "y2": y2} | change
        (root / "Annotations/image0.xml").write_text(XML.format(**values))

    return harm


BOX_FAULTS = [
    (with_box(x2=33), r"image0: box 3, 5, 33, 14 outside 24×32"),
    (with_box(x2=3), r"image0: box 3, 5, 3, 14 of no area"),
    (with_box(x1=-50), r"image0: box -51, 5, 20, 14 outside 24×32"),
    (with_box(x1="nan"), r"image0: box nan, 5, 20, 14 is not of numbers"),
    (
        lambda root: shutil.copy(root / "ImageSets/Main/train.txt", root / "ImageSets/Main/val.txt"),
        r"images stand in two splits; name each in one",
    ),
    (with_box(kind="cow"), r"image0: a box of cow, which is none of the classes cat, dog"),
    (with_box(w=64), r"image0: annotated for 24×64 pixels, but has 24×32"),
    (lambda root: (root / "Annotations/image0.xml").unlink(), r"image0.xml: missing, and ImageSets names it"),
    (lambda root: (root / "Annotations/image0.xml").write_text("<a>"), r"image0.xml: not VOC's form"),
    (lambda root: (root / "JPEGImages/image0.png").unlink(), r"no image image0, which ImageSets names"),
    (lambda root: (root / "ImageSets/Main/train.txt").write_text("image0\nimage0"), r"names that stand twice in train"),
]


@pytest.mark.fault(36, "boxes outside the image, of no area, of unknown classes; duplicate names", "one line each")
@pytest.mark.parametrize(("harm", "told"), BOX_FAULTS)
def test_faults_of_boxes_are_told(harm, told, tmp_path):
    root = voc(tmp_path / "set")
    harm(root)
    with pytest.raises(TurncoatError, match=told):
        made("voc", root, "detection", classes=["cat", "dog"])


def test_coco_of_another_form_is_refused(tmp_path):
    root = coco(tmp_path / "set")
    file = root / "annotations/instances_train.json"
    told = json.loads(file.read_text())
    told["annotations"][0]["image_id"] = 99
    file.write_text(json.dumps(told))
    with pytest.raises(TurncoatError, match="annotation 0 is of an image or class that is not listed"):
        made("coco", root, "detection")
    told["annotations"][0] |= {"image_id": told["images"][0]["id"], "bbox": [float("nan"), 0, 3, 3]}
    file.write_text(json.dumps(told))
    with pytest.raises(TurncoatError, match="is not of numbers"):
        made("coco", root, "detection")
    file.write_text("{}")
    with pytest.raises(TurncoatError, match="not COCO's form"):
        made("coco", root, "detection")


def test_published_voc_is_read_through_torchvisions_classes(tmp_path, monkeypatch):
    """Its layout, with the archives' checks taken for passed: they are 460 MB and more."""
    from turncoat.data import published

    root = voc(tmp_path / "VOCdevkit" / "VOC2007")
    for folder in ("Main", "Segmentation"):
        shutil.copy(root / "ImageSets" / folder / "train.txt", root / "ImageSets" / folder / "trainval.txt")
    for file in (root / "JPEGImages").iterdir():  # torchvision names them .jpg
        Image.open(file).convert("RGB").save(file.with_suffix(".jpg"), quality=95)
        file.unlink()
    for file in (root / "Annotations").iterdir():
        file.write_text(file.read_text().replace("<size>", "<filename>x</filename><size>"))
    for task, shape in (("detection", (6, 1, 5)), ("segmentation", (6, 16, 16))):
        raw = published._voc("2007", tmp_path, task, (16, 16))
        assert raw.train.labels.shape == shape
        assert raw.test is not None
        assert len(raw.test) == 4
    assert published.VOC_CLASSES[8] == "cat"
    assert set(raw.train.labels[0].ravel()) == {0, 1}
