"""Images with masks or boxes, out of folders in one of the layouts of `layouts`, read and checked.

Images, masks and boxes are stretched to `image_size` where it is given: nothing is cut off.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from turncoat.data import layouts
from turncoat.data.layouts import Annotated
from turncoat.data.own import Raw, located
from turncoat.data.pictures import gather, listed
from turncoat.data.store import Split
from turncoat.data.targets import VOID, Task, packed
from turncoat.errors import TurncoatError

Size = tuple[int, int] | None  # height and width


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
    finders = {"masks": layouts.of_masks, "coco": layouts.of_coco, "voc": layouts.of_voc}
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
        _check_labels(where, everything, targets, names)
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
    everywhere = Counter(one.image for members in found.values() for one in members)
    if shared := sorted(str(image) for image, times in everywhere.items() if times > 1):
        raise TurncoatError(listed(f"{where}: {len(shared)} images stand in two splits; name each in one", shared))


def _counted(masks: NDArray[np.uint8]) -> list[str]:
    """Classes without names: their numbers, 0 to the largest."""
    present = np.unique(masks)
    return [str(number) for number in range(int(present[present != VOID].max(initial=0)) + 1)]


def _check_labels(where: str, members: Sequence[Annotated], masks: NDArray[np.uint8], names: Sequence[str]) -> None:
    """Each mask that holds a number beyond the classes, by its file."""
    faults = []
    for one, mask in zip(members, masks, strict=True):
        if beyond := sorted(set(np.unique(mask[mask != VOID]).tolist()) - set(range(len(names)))):
            faults.append(f"{one.mask}: {', '.join(map(str, beyond[:5]))}")
    if faults:
        found = f"numbers beyond the {len(names)} classes in {len(faults)} of {len(members)} masks"
        remedy = "name their classes in `classes`, or give the one that counts for nothing as `void`"
        raise TurncoatError(listed(f"{where}: {found}; {remedy}", faults))


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
            elif not np.isfinite((x1, y1, x2, y2)).all():
                faults.append(f"{one.name}: box {x1:g}, {y1:g}, {x2:g}, {y2:g} is not of numbers")
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
