"""Where images with masks or boxes lie: pairs of images and masks, COCO's JSON, Pascal VOC's XML.

masks   <path>/{train,val,test}/ with {train,val,test}annot/ beside them; or images/ and masks/, each with these
        folders inside or, where the data is not split, with the files themselves
coco    <path>/annotations/instances_<split>.json and <path>/<split>/; or <path>/<split>/_annotations.coco.json
        among the split's images
voc     <path>/JPEGImages, Annotations or SegmentationClass, and ImageSets/{Main,Segmentation}/{train,val,test}.txt;
        without ImageSets the data is not split
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from turncoat.data.folder import PICTURES, SPLITS
from turncoat.data.pictures import listed
from turncoat.errors import TurncoatError
from turncoat.tasks import Task

Boxes = list[tuple[str, float, float, float, float]]  # name of the class, x1, y1, x2, y2 in pixels of the file


@dataclass(frozen=True)
class Annotated:
    """One image and what is to be found in it: the file of its mask, or its boxes. `size`: (h, w) that boxes are in."""

    name: str
    image: Path
    mask: Path | None = None
    boxes: Boxes | None = None
    size: tuple[int, int] | None = None


def of_masks(root: Path, task: Task) -> dict[str, list[Annotated]]:
    """Pairs of an image and a mask of the same name without its ending."""
    if (root / "images").is_dir() and (root / "masks").is_dir():
        inside = _split_folders(root / "images")
        places = {split: (folder, root / "masks" / folder.name) for split, folder in inside.items()}
        places = places or {"train": (root / "images", root / "masks")}
    else:
        places = {split: (folder, root / f"{folder.name}annot") for split, folder in _split_folders(root).items()}
    if "train" not in places:
        raise TurncoatError(f"{root}: no train/ with trainannot/, and no images/ with masks/")
    found = {}
    for split, (images, masks) in places.items():
        if not masks.is_dir():
            raise TurncoatError(f"{masks}: no such folder; it holds the masks of {images}")
        of_stem: dict[str, Path] = {}
        for mask in sorted(_pictures(masks)):
            if mask.stem in of_stem:
                raise TurncoatError(f"{masks}: {of_stem[mask.stem].name} and {mask.name} are masks of one image")
            of_stem[mask.stem] = mask
        files = sorted(_pictures(images))
        if lacking := [file.name for file in files if file.stem not in of_stem]:
            raise TurncoatError(
                listed(f"{masks}: no mask of {len(lacking)} of its images; add them, or take the images out", lacking)
            )
        if alone := [of_stem[stem].name for stem in sorted(of_stem.keys() - {file.stem for file in files})]:
            raise TurncoatError(listed(f"{masks}: {len(alone)} without an image; add it, or take the mask out", alone))
        found[split] = [Annotated(f"{split}/{file.stem}", file, of_stem[file.stem]) for file in files]
    return found


def of_coco(root: Path, task: Task) -> dict[str, list[Annotated]]:
    together = root / "annotations"
    files: dict[str, tuple[Path, Path]] = {}
    for split, names in SPLITS.items():
        for name in names:
            places = sorted(together.glob(f"instances_{name}*.json")) if together.is_dir() else []
            for file in places:
                files.setdefault(split, (file, root / file.stem.removeprefix("instances_")))
            if (file := root / name / "_annotations.coco.json").is_file():
                files.setdefault(split, (file, root / name))
    if "train" not in files:
        raise TurncoatError(f"{root}: no annotations/instances_train*.json, and no train/_annotations.coco.json")
    return {split: _coco(file, images) for split, (file, images) in files.items()}


def _coco(file: Path, images: Path) -> list[Annotated]:
    try:
        told = json.loads(file.read_text())
        kinds = {kind["id"]: str(kind["name"]) for kind in told["categories"]}
        boxes: dict[Any, Boxes] = {image["id"]: [] for image in told["images"]}
        for one in told["annotations"]:
            if one["image_id"] not in boxes or one["category_id"] not in kinds:
                raise TurncoatError(f"{file}: annotation {one.get('id')} is of an image or class that is not listed")
            if not one.get("iscrowd"):
                x, y, width, height = map(float, one["bbox"])
                boxes[one["image_id"]].append((kinds[one["category_id"]], x, y, x + width, y + height))
        return [
            Annotated(
                str(image["file_name"]),
                images / str(image["file_name"]),
                boxes=boxes[image["id"]],
                size=(int(image["height"]), int(image["width"])) if "height" in image and "width" in image else None,
            )
            for image in told["images"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise TurncoatError(f"{file}: not COCO's form: {type(error).__name__} {error}") from error


def of_voc(root: Path, task: Task) -> dict[str, list[Annotated]]:
    inner = {"segmentation": ("SegmentationClass", "Segmentation"), "detection": ("Annotations", "Main")}
    folder, listing = inner[task]
    for name in ("JPEGImages", folder):
        if not (root / name).is_dir():
            raise TurncoatError(f"{root}: no folder {name}, which a data set in VOC's layout has for {task}")
    files: dict[str, Path] = {}
    for file in sorted(_pictures(root / "JPEGImages")):
        if file.stem in files:
            raise TurncoatError(f"{root}: {files[file.stem].name} and {file.name} have one name")
        files[file.stem] = file
    lists = root / "ImageSets" / listing
    stems = {
        split: (lists / f"{name}.txt").read_text().split()
        for split, names in SPLITS.items()
        for name in names
        if (lists / f"{name}.txt").is_file()
    }
    if not stems:
        stems = {"train": sorted(path.stem for path in (root / folder).iterdir() if path.suffix in (".xml", ".png"))}
    if "train" not in stems and (lists / "trainval.txt").is_file():  # VOC 2007, whose validation set is drawn from it
        stems = {"train": (lists / "trainval.txt").read_text().split(), **stems}
        stems.pop("validation", None)
    if "train" not in stems:
        raise TurncoatError(f"{lists}: no train.txt; there are {', '.join(stems) or 'none'}")
    return {split: [voc(root, folder, stem, files) for stem in names] for split, names in stems.items()}


def voc(root: Path, folder: str, stem: str, files: Mapping[str, Path]) -> Annotated:
    """One image of a folder in VOC's layout. `files`: stem -> image."""
    if stem not in files:
        raise TurncoatError(f"{root / 'JPEGImages'}: no image {stem}, which ImageSets names")
    place = root / folder / f"{stem}{'.png' if folder == 'SegmentationClass' else '.xml'}"
    if not place.is_file():
        raise TurncoatError(f"{place}: missing, and ImageSets names it")
    if folder == "SegmentationClass":
        return Annotated(stem, files[stem], mask=place)
    try:
        told = ElementTree.parse(place).getroot()
        size = told.find("size")
        sides = (int(_text(size, "height")), int(_text(size, "width"))) if size is not None else None
        boxes = [_voc_box(thing) for thing in told.iter("object")]
    except (ElementTree.ParseError, ValueError) as error:
        raise TurncoatError(f"{place}: not VOC's form ({error})") from error
    return Annotated(stem, files[stem], boxes=boxes, size=sides if sides and min(sides) > 0 else None)


def _voc_box(thing: ElementTree.Element) -> tuple[str, float, float, float, float]:
    """VOC counts pixels from 1, the last one included: x1 − 1 is where a box begins."""
    box = thing.find("bndbox")
    x1, y1, x2, y2 = (float(_text(box, name)) for name in ("xmin", "ymin", "xmax", "ymax"))
    left, top = (0.0 if start == 0 else start - 1 for start in (x1, y1))  # some files count from 0
    return _text(thing, "name"), left, top, x2, y2


def _text(element: ElementTree.Element | None, name: str) -> str:
    text = element.findtext(name) if element is not None else None
    if text is None:
        raise ValueError(f"no {name}")
    return text.strip()


def _split_folders(root: Path) -> dict[str, Path]:
    """Split -> its folder."""
    there = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    return {split: there[name] for split, names in SPLITS.items() for name in names if name in there}


def _pictures(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix.lower() in PICTURES and not path.name.startswith(".")]
