"""The data sets as published: fetched, verified, read through torchvision's own classes (digits: scikit-learn's)."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from turncoat.data import annotated, layouts
from turncoat.data.archives import unpacked
from turncoat.data.fetch import WrongFile, obtain, verify
from turncoat.data.own import Raw
from turncoat.data.sources import RawFile, imagenette_size
from turncoat.data.store import Split
from turncoat.data.targets import Task
from turncoat.errors import TurncoatError

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

log = logging.getLogger(__name__)


def read(
    source: str,
    files: tuple[RawFile, ...],
    cache: Path,
    size: tuple[int, int] | None = None,
    task: Task = "classification",
) -> Raw:
    """Read a data set, fetching its files first where they are not at hand.

    Args:
        source: one of `sources.SOURCES`.
        files: what `sources.raw_files` lists for it.
        cache: folder for downloads; the raw files stay there, nothing else does.
        size: height and width in pixels, for imagenette and VOC. task: for VOC, which has masks and boxes.

    Raises:
        TurncoatError: a file is missing, wrong, or unsafe to unpack.
    """
    if source == "digits":
        return _digits()
    with _alone(cache):
        raw = {file.path: path for file, path in zip(files, obtain(files, source, cache), strict=True)}
        with unpacked(raw, cache) as root:
            for file in files:
                if raw[file.path].is_file():
                    _verify_members(file, raw[file.path], root)
            if source.startswith("voc"):
                return _voc(source.removeprefix("voc"), root, task, size)
            return _imagenette(root, size[0] if size else 0) if source == "imagenette" else _arrays(source, root)


def _verify_members(file: RawFile, archive: Path, root: Path) -> None:
    """Compare what came out of an archive with its own published md5 sums: these are pickles, loading one runs it."""
    for place, md5 in file.unpacked.items():
        try:
            verify(root / place, md5)
        except (FileNotFoundError, WrongFile) as error:
            raise TurncoatError(f"{archive}: refused, {place} in it is not the published file") from error


def _digits() -> Raw:
    """scikit-learn's 8×8 digits; their 17 grey levels 0...16 spread over 0...255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return Raw(Split(images, digits.target.astype(np.int64)), None, tuple(str(name) for name in digits.target_names))


def _arrays(source: str, root: Path) -> Raw:
    """Read torchvision's layout below `root`; torchvision itself compares the md5 of each pickle again and loads it."""
    from torchvision import datasets

    kind = {
        "mnist": datasets.MNIST,
        "fashion_mnist": datasets.FashionMNIST,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
    }[source]
    try:
        parts = [kind(root, train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise TurncoatError(f"{source}: torchvision refused the raw files ({error})") from error
    splits = [Split(_nchw(np.asarray(part.data)), np.asarray(part.targets, dtype=np.int64)) for part in parts]
    return Raw(splits[0], splits[1], tuple(parts[0].classes))


def _nchw(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, H, W) or (n, H, W, C) -> (n, C, H, W)."""
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def _imagenette(root: Path, image_size: int) -> Raw:
    """Photographs, the shorter side resized to `image_size` (bicubic) and the middle square cut out."""
    from PIL import Image, ImageOps
    from torchvision.datasets import Imagenette

    splits = {}
    for part in ("train", "val"):
        photographs = Imagenette(root, split=part, size=imagenette_size(image_size))
        # They come class by class; in this fixed random order the first n are a fair sample of all classes.
        order = np.random.RandomState(0).permutation(len(photographs))
        images = np.empty((len(order), 3, image_size, image_size), dtype=np.uint8)
        labels = np.empty(len(order), dtype=np.int64)
        for place, index in enumerate(tqdm(order, desc=f"imagenette {part}", disable=None)):
            photograph, labels[place] = photographs[index]
            square = ImageOps.fit(photograph, (image_size, image_size), Image.Resampling.BICUBIC)
            images[place] = np.asarray(square).transpose(2, 0, 1)
        splits[part] = Split(images, labels)
    return Raw(splits["train"], splits["val"], tuple(names[0] for names in photographs.classes))


def _voc(year: str, root: Path, task: Task, size: tuple[int, int] | None) -> Raw:
    """Photographs with masks or boxes, as torchvision's classes list them; of 2012, whose test set has none, `val`."""
    from torchvision.datasets import VOCDetection, VOCSegmentation

    kind = VOCSegmentation if task == "segmentation" else VOCDetection
    sets = {"train": "trainval", "test": "test"} if year == "2007" else {"train": "train", "test": "val"}
    found = {}
    for split, part in sets.items():
        listed = kind(root, year=year, image_set=part, download=False)
        images = {Path(image).stem: Path(image) for image in listed.images}
        folder = Path(listed.targets[0]).parent
        found[split] = [layouts.voc(folder.parent, folder.name, stem, images) for stem in images]
    names = VOC_CLASSES if task == "segmentation" else VOC_CLASSES[1:]
    return annotated.assembled(f"voc{year}", found, task, size, names, None)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Hold the cache folder's lock: two data sets of one source would otherwise download over each other."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s: another process is downloading here; waiting for it", cache)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
