"""Images in folders, a folder a class (the layout of torchvision's ImageFolder), with or without train/ and test/."""

import hashlib
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from turncoat.data.own import Raw, located
from turncoat.data.pictures import gather, listed
from turncoat.data.splits import stratified_order
from turncoat.data.store import Split
from turncoat.errors import TurncoatError

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
LITTER = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found"}
BESIDE = {".csv", ".html", ".ini", ".json", ".log", ".md", ".pdf", ".rst", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
PICTURES = {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def read(path: str, size: tuple[int, int] | None) -> Raw:
    """Read all images below a folder.

    Args:
        path: the folder, see `own.located`.
        size: height and width that images are brought to, or None: all have one size.

    Raises:
        TurncoatError: the layout is none that is known, a class is empty, there is one class only, or images cannot
            be used.
    """
    root = located(path)
    if not root.is_dir():
        raise TurncoatError(f"{path}: a file; source folder reads folders (a file .npz or .parquet has its own source)")
    found = _found(root)
    classes = sorted(found["train"])
    if len(classes) < 2:
        raise TurncoatError(
            f"{path}: {len(classes)} class ({', '.join(classes)}); a folder a class, at least two, wanted"
        )
    for split, of_class in found.items():
        if unknown := sorted(set(of_class) - set(classes)):
            raise TurncoatError(listed(f"{path}: {split} has {len(unknown)} classes that train has not", unknown))
        if empty := sorted(name for name, files in of_class.items() if not files):
            raise TurncoatError(
                listed(f"{path}: classes without an image in {split}; fill or remove the folder", empty)
            )
    files = {split: [file for name in sorted(of) for file in of[name]] for split, of in found.items()}
    everything = [file for split in files.values() for file in split]
    names = [file.relative_to(root).as_posix() for file in everything]
    made = gather(iter(zip(names, everything, strict=True)), len(everything), size, path)
    numbers = {name: number for number, name in enumerate(classes)}
    parts, of_split, start = {}, {}, 0
    for split, of_class in found.items():
        labels = np.concatenate([np.full(len(of_class[name]), numbers[name], np.int64) for name in sorted(of_class)])
        # whoever takes the first n of them takes all classes
        order = np.arange(len(labels)) if split == "train" else stratified_order(labels, 0)
        parts[split] = Split(made.images[start + order], labels[order])
        of_split[split] = [names[start + place] for place in order]
        start += len(labels)
    return Raw(
        parts["train"],
        parts.get("test"),
        tuple(classes),
        parts.get("validation"),
        of_split,
        {"files": len(everything), "bytes": made.bytes, "sha256": made.sha256},
        made.notes,
    )


def listing(path: str) -> dict[str, Any]:
    """What lies at `path`, cheaply: number of files, bytes, and a SHA-256 over names, sizes and times of change.

    It changes when a file is added, removed, renamed or written; nothing is opened.

    Raises:
        TurncoatError: there is nothing.
    """
    root = located(path)
    digest, total, count = hashlib.sha256(), 0, 0
    for file in [root] if root.is_file() else _files(root):
        try:
            about = file.stat()
        except OSError:  # a link to nothing
            about = file.lstat()
        digest.update(os.fsencode(file.relative_to(root)) + f"\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
        total, count = total + about.st_size, count + 1
    return {"files": count, "bytes": total, "sha256": digest.hexdigest()}


def _found(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Split -> class -> files; `train` alone where the folder is not split."""
    inside = _folders(root)
    named = {split: [folder for folder in inside if folder.name.lower() in names] for split, names in SPLITS.items()}
    other = [folder.name for folder in inside if not any(folder in folders for folders in named.values())]
    train = named["train"]
    if other and not (train and _folders(train[0])):  # a class may be called `train`; it holds images, not folders
        return {"train": _classes(root)}
    if not train:
        raise TurncoatError(
            f"{root}: no folder train, and no folders of classes ({', '.join(map(str, inside)) or 'none'})"
        )
    if other:
        raise TurncoatError(listed(f"{root}: folders beside train that are no split; move them elsewhere", other))
    for split, folders in named.items():
        if len(folders) > 1:
            raise TurncoatError(f"{root}: {' and '.join(folder.name for folder in folders)} are both {split}; keep one")
    return {split: _classes(folders[0]) for split, folders in named.items() if folders}


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Class -> its files in the order of their paths; names as composed Unicode, or macOS's would be other classes."""
    if stray := sorted(
        path.name for path in folder.iterdir() if path.suffix.lower() in PICTURES and _wanted(path.name)
    ):
        raise TurncoatError(listed(f"{folder}: {len(stray):,} images outside the folders of classes", stray))
    return {
        unicodedata.normalize("NFC", inside.name): [
            file for file in _files(inside) if file.suffix.lower() not in BESIDE
        ]
        for inside in _folders(folder)
    }


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _wanted(path.name) and path.is_dir())


def _files(folder: Path) -> list[Path]:
    """All files below `folder`, hidden ones and litter left out, in the order of their paths; links are followed."""
    found, seen = [], set()
    for base, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        folders[:] = [name for name in folders if _wanted(name)] if real not in seen else []  # a link may lead back
        found += [Path(base, name) for name in files if _wanted(name)] if real not in seen else []
        seen.add(real)
    return sorted(found)


def _wanted(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in LITTER
