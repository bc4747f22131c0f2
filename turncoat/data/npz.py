"""Images in NumPy archives (`source: npz`): one set to be split, or training and test sets apart."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from turncoat.data.own import Raw, located
from turncoat.data.pictures import Pixels, channels_first, fits, resized
from turncoat.data.store import Split
from turncoat.errors import TurncoatError
from turncoat.files import sha256

# The names of images and labels: as here, in Keras's archives, and in MedMNIST's.
NAMES = {
    "train": (("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels")),
    "validation": (("x_validation", "y_validation"), ("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
BROKEN = (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, NotImplementedError, SyntaxError)


def read(path: str, size: tuple[int, int] | None) -> Raw:
    """Read a `.npz` file.

    Args:
        path: the file, see `own.located`.
        size: height and width that images are brought to, or None: they stay as they are.

    Raises:
        TurncoatError: the archive is broken or holds pickles, its arrays are missing or of another form.
    """
    file = located(path)
    arrays = _arrays(file, path)
    parts: dict[str, Split] = {}
    notes: dict[str, int] = {}
    for split, pairs in NAMES.items():
        present = [pair for pair in pairs if pair[0] in arrays]
        if len(present) > 1:
            raise TurncoatError(f"{path}: {' and '.join(pair[0] for pair in present)} are both {split}; keep one")
        for images, labels in present:
            if labels not in arrays:
                raise TurncoatError(f"{path}: {images} without {labels}")
            pixels = _pixels(arrays.pop(images), f"{path}: {images}", notes)
            if size and pixels.shape[2:] != size:
                pixels = _fitted(pixels, size, f"{path}: {images}")
            parts[split] = Split(pixels, _labels(arrays.pop(labels), len(pixels), f"{path}: {labels}"))
    if "train" not in parts:
        wanted = " or ".join("/".join(pair) for pair in NAMES["train"])
        raise TurncoatError(
            f"{path}: no training images; arrays {wanted} wanted, there are {', '.join(arrays) or 'none'}"
        )
    shapes = {part.images.shape[1:] for part in parts.values()}
    if len(shapes) > 1:
        raise TurncoatError(f"{path}: its sets differ in shape: {', '.join(map(str, sorted(shapes)))} (channels first)")
    names = arrays.get("classes", arrays.get("class_names"))
    last = max(int(part.labels.max(initial=0)) for part in parts.values())
    classes = tuple(map(str, range(last + 1) if names is None else np.ravel(names)))
    return Raw(
        parts["train"],
        parts.get("test"),
        classes,
        parts.get("validation"),
        read={"files": 1, "bytes": file.stat().st_size, "sha256": sha256(file)},
        notes=notes,
    )


def _arrays(file: Path, path: str) -> dict[str, NDArray[Any]]:
    """The arrays of an archive; what would need a pickle to be run is refused."""
    try:
        with zipfile.ZipFile(file) as archive:
            fits(sum(member.file_size for member in archive.infolist()), path)  # zeros shrink a thousandfold
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except BROKEN as error:
        if "pickle" in str(error):
            raise TurncoatError(f"{path}: refused, it holds Python objects; save arrays of numbers") from error
        raise TurncoatError(f"{path}: no readable .npz archive ({error})") from error


def _pixels(array: NDArray[Any], where: str, notes: dict[str, int]) -> Pixels:
    """(n, H, W), (n, H, W, C) or (n, C, H, W), of 0...255 or in [0, 1] -> (n, C, H, W) uint8; C is 1 or 3."""
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or not len(array):
        raise TurncoatError(
            f"{where}: (n, height, width[, 1 or 3 channels]) wanted, or channels first, not {array.shape}"
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise TurncoatError(f"{where}: numbers wanted, not {array.dtype}")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        fits(array.nbytes, where)
        said = f"rounded from {array.dtype} to 256 values"
        notes[said] = notes.get(said, 0) + len(array)
        rounded: Pixels = np.rint(array * 255).astype(np.uint8)
        return rounded
    if array.dtype.kind in "iu" and low >= 0 and 1 < high <= 255:
        return array.astype(np.uint8)
    raise TurncoatError(
        f"{where}: {array.dtype} from {low:g} to {high:g}; whole numbers 0...255, or floats in [0, 1], wanted. "
        "Undo a normalisation before saving: the network's first layer normalises"
    )


def _labels(labels: NDArray[Any], count: int, where: str) -> NDArray[np.int64]:
    """(n,) or (n, 1) whole numbers -> (n,) int64."""
    if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "iu":
        hint = "; of one-hot rows, take argmax(1)" if labels.ndim == 2 and labels.shape[1] > 1 else ""
        raise TurncoatError(f"{where}: ({count},) whole numbers wanted, not {labels.dtype} {labels.shape}{hint}")
    return labels.reshape(-1).astype(np.int64)


def _fitted(images: Pixels, size: tuple[int, int], where: str) -> Pixels:
    fits(images.shape[0] * images.shape[1] * size[0] * size[1], where)
    made = np.empty((*images.shape[:2], *size), dtype=np.uint8)
    for place, image in enumerate(images):
        whole = Image.fromarray(np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)))
        made[place] = channels_first(resized(whole, size))
    return made
