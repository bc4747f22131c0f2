"""Images with masks or boxes, out of folders: pairs of images and masks, COCO's JSON, Pascal VOC's XML.

    masks   <path>/{train,val,test}/ with {train,val,test}annot/ beside them; or images/ and masks/, each with these
            folders inside or, where the data is not split, with the files themselves
    coco    <path>/annotations/instances_<split>.json and <path>/<split>/; or <path>/<split>/_annotations.coco.json
            among the split's images
    voc     <path>/JPEGImages, Annotations or SegmentationClass, and ImageSets/{Main,Segmentation}/{train,val,test}.txt;
            without ImageSets the data is not split

Images, masks and boxes are stretched to `image_size` where it is given: nothing is cut off.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from turncoat.data.folder import PICTURES, SPLITS
from turncoat.data.own import Raw, located
from turncoat.data.pictures import gather, listed
from turncoat.data.store import Split
from turncoat.data.targets import VOID, Task, packed
from turncoat.errors import TurncoatError

Size = tuple[int, int] | None  # height and width
Boxes = list[tuple[str, float, float, float, float]]  # name of the class, x1, y1, x2, y2 in pixels of the file


@dataclass(frozen=True)
class Annotated:
    """One image and what is to be found in it: the file of its mask, or its boxes. `size`: (h, w) that boxes are in."""

    name: str
    image: Path
    mask: Path | None = None
    boxes: Boxes | None = None
    size: tuple[int, int] | None = None


def read(source: str, path: str, task: Task, size: Size, classes: Sequence[str] | None, void: int | None) -> Raw:
    """Read all images of a folder with their masks or boxes.

    Args:
        source: masks, coco or voc. path: see `own.located`. size: height and width that images are brought to, or None.
        classes: what masks and boxes show, in order. void: value of a mask that counts for nothing, besides 255.

    Raises:
        TurncoatError: the layout is not the source's, a mask or image is missing, a name stands twice, a box lies
            outside its image or has no area, or an image cannot be used.
    """
    root = located(path)
    if not root.is_dir():
        raise TurncoatError(f"{path}: a folder is wanted for source {source}")
    finders = {"masks": _of_masks, "coco": _of_coco, "voc": _of_voc}
    return assembled(path, finders[source](root, task), task, size, classes, void)


def assembled(
    where: str,
    found: Mapping[str, Sequence[Annotated]],
    task: Task,
    size: Size,
    classes: Sequence[str] | None,
    void: int | None,
) -> Raw:
    """The images and targets of each split, read and checked; raises as `read`."""
    _check_names(where, found)
    everything = [one for split in found.values() for one in split]
    if not everything:
        raise TurncoatError(f"{where}: no image with {'a mask' if task == 'segmentation' else 'boxes'} is there")
    entries = iter([(one.name, one.image) for one in everything])
    made = gather(entries, len(everything), size, where, stretch=True)
    sides, sides_used = made.sides, made.images.shape[2:]
    targets: NDArray[Any]
    if task == "segmentation":
        targets = np.stack([_mask(one, side, sides_used, void) for one, side in zip(everything, sides, strict=True)])
        names = list(classes or _counted(targets))
    else:
        names = list(classes or sorted({box[0] for one in everything for box in one.boxes or []}))
        targets = _placed(where, everything, sides, sides_used, names)
    parts, of_split, start = {}, {}, 0
    for split, members in found.items():
        stop = start + len(members)
        parts[split] = Split(made.images[start:stop], targets[start:stop])
        of_split[split] = [one.name for one in members]
        start = stop
    read_ = {"files": len(everything), "bytes": made.bytes, "sha256": made.sha256}
    notes = dict(made.notes)
    return Raw(parts["train"], parts.get("test"), tuple(names), parts.get("validation"), of_split, read_, notes)


def _check_names(where: str, found: Mapping[str, Sequence[Annotated]]) -> None:
    for split, members in found.items():
        names = [one.name for one in members]
        if twice := sorted(name for name, times in Counter(names).items() if times > 1):
            raise TurncoatError(listed(f"{where}: names that stand twice in {split}", twice))
        if lost := [str(one.image) for one in members if not one.image.is_file()]:
            raise TurncoatError(listed(f"{where}: annotations of {len(lost)} images that are not there", lost))


def _counted(masks: NDArray[np.uint8]) -> list[str]:
    """Classes without names: their numbers, 0 to the largest."""
    present = np.unique(masks)
    return [str(number) for number in range(int(present[present != VOID].max(initial=0)) + 1)]


def _mask(one: Annotated, side: tuple[int, int], size: Sequence[int], void: int | None) -> NDArray[np.uint8]:
    """(h, w) of a mask file, as class numbers; the nearest pixel where it is stretched."""
    assert one.mask is not None
    try:
        with Image.open(one.mask, formats=("PNG", "BMP", "TIFF", "GIF")) as image:
            if image.mode not in ("L", "P", "1"):
                raise TurncoatError(
                    f"{one.mask}: a mask holds one class number a pixel, grey or with a palette (got {image.mode})"
                )
            mask = np.asarray(image).astype(np.uint8)
    except (OSError, SyntaxError) as error:
        raise TurncoatError(f"{one.mask}: the mask cannot be read ({error}); mend it, or take its image out") from error
    if mask.shape != side:
        given = "×".join(map(str, mask.shape))
        raise TurncoatError(f"{one.mask}: {given} pixels for an image of {'×'.join(map(str, side))}")
    if mask.shape != tuple(size):
        picture = Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST)
        mask = np.asarray(picture)
    return mask if void is None else np.where(mask == void, VOID, mask).astype(np.uint8)


def _placed(
    where: str,
    members: Sequence[Annotated],
    sides: Sequence[tuple[int, int]],
    size: Sequence[int],
    names: Sequence[str],
) -> NDArray[np.float32]:
    """(n, m, 5): the boxes of each image, in pixels of the images as they are used."""
    numbers = {name: number for number, name in enumerate(names)}
    faults: list[str] = []
    found = []
    for one, side in zip(members, sides, strict=True):
        height, width = side
        if one.size is not None and one.size != side:
            faults.append(f"{one.name}: annotated for {one.size[0]}×{one.size[1]} pixels, but has {height}×{width}")
            continue
        rows = []
        for kind, x1, y1, x2, y2 in one.boxes or []:
            if kind not in numbers:
                faults.append(f"{one.name}: a box of {kind}, which is none of the classes {', '.join(names)}")
            elif x1 < 0 or y1 < 0 or x2 > width or y2 > height:
                faults.append(f"{one.name}: box {x1:g}, {y1:g}, {x2:g}, {y2:g} outside {height}×{width} (height×width)")
            elif x2 <= x1 or y2 <= y1:
                faults.append(f"{one.name}: box {x1:g}, {y1:g}, {x2:g}, {y2:g} of no area")
            else:
                scale = size[1] / width, size[0] / height
                rows.append((numbers[kind], x1 * scale[0], y1 * scale[1], x2 * scale[0], y2 * scale[1]))
        found.append(np.array(rows, np.float32).reshape(-1, 5))
    if faults:
        raise TurncoatError(listed(f"{where}: {len(faults)} boxes cannot be used; mend or remove them", faults))
    return packed(found)


def _of_masks(root: Path, task: Task) -> dict[str, list[Annotated]]:
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
            raise TurncoatError(listed(f"{masks}: {len(lacking)} images of {images.name} have no mask", lacking))
        found[split] = [Annotated(f"{split}/{file.stem}", file, of_stem[file.stem]) for file in files]
    return found


def _of_coco(root: Path, task: Task) -> dict[str, list[Annotated]]:
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


def _of_voc(root: Path, task: Task) -> dict[str, list[Annotated]]:
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
    return _text(thing, "name"), max(x1 - 1, 0.0), max(y1 - 1, 0.0), x2, y2


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
