"""Images of one's own, as `source: folder`, `npz` or `parquet` with a `path` name them, read into one form."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turncoat.data.fetch import MIRROR, mirror_folder
from turncoat.data.store import Split
from turncoat.errors import TurncoatError


@dataclass(frozen=True)
class Raw:
    """A data set as it was found: `train` is all of it where there is no official test set.

    Attributes:
        validation: the validation set that it brings along, if any.
        names: split -> the name of each of its images, for messages; none where they have no names.
        read: what was read, for `dataset.json`: number of files, bytes, SHA-256 over them.
        notes: what had to be done to the images, each with its count.
    """

    train: Split
    test: Split | None
    classes: tuple[str, ...]
    validation: Split | None = None
    names: Mapping[str, list[str]] = field(default_factory=dict)
    read: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)


def located(path: str) -> Path:
    """The folder or file that `path` names: an absolute one, or one below the study's folder, or below the mirror.

    `dvc exp run --temp` works in a copy without the images; `$DVC_ROOT` still names the checkout.

    Raises:
        TurncoatError: there is nothing; the places looked at are named.
    """
    bases = [Path.cwd(), *([Path(root)] if (root := os.environ.get("DVC_ROOT")) else [])]
    bases += [mirror] if (mirror := mirror_folder()) else []
    places = list(dict.fromkeys(base / Path(path).expanduser() for base in bases))
    for place in places:
        if place.exists():
            return place
    looked = ", ".join(str(place) for place in places if str(place) != path)
    there = f" (looked for {looked})" if looked else ""
    raise TurncoatError(f"{path}: no such file or folder{there}; write an absolute path, or set {MIRROR}")
