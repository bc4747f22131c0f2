"""Finished pieces of an evaluation, a line each, so that a killed run goes on after the last of them."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turncoat.errors import TurncoatError
from turncoat.training.checkpoint import fingerprint


class Journal:
    """A file to which each finished piece is appended; without a path nothing is kept.

    A piece is known by its key, which must say everything that its result hangs on within this evaluation; the file
    itself belongs to one set of weights, images and settings. A line that a kill cut short, or that does not match its
    checksum, is dropped with all that follow.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._done: dict[str, Any] = {}
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._done)

    def once(self, key: str, work: Callable[[], Any]) -> Any:
        """The result of `work` (a JSON value), out of the file where an earlier run has finished it."""
        if key not in self._done:
            text = json.dumps([key, work()], allow_nan=False)
            if self.path is not None:
                _append(self.path, f"{_checksum(text)} {text}\n")
            self._done[key] = json.loads(text)[1]  # the very value that a resumed run would read
        return self._done[key]

    def _read(self, path: Path) -> None:
        good = 0
        for line in path.read_bytes().splitlines(keepends=True):
            checksum, _, text = line.decode("utf-8", "replace").partition(" ")
            if not text.endswith("\n") or _checksum(text[:-1]) != checksum:
                break
            key, value = json.loads(text)
            self._done[key] = value
            good += len(line)
        os.truncate(path, good)


def evaluation_key(settings: Mapping[str, Any], inputs: Iterable[Path | str], code: Iterable[str] = ()) -> str:
    """Fingerprint of an evaluation: its settings, all code that takes part, torch's version and the input files.

    Args: code: modules that take part besides `turncoat.evaluation`, such as a stage.
    """
    return fingerprint({"evaluation": dict(settings)}, inputs, ["turncoat.evaluation", *code])


def _append(path: Path, line: str) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # what was written of the line is dropped when the journal is read
        free = shutil.disk_usage(path.parent).free
        needed = f"{len(line)} bytes needed, {free} free"
        raise TurncoatError(f"{path}: could not be written ({error.strerror}): {needed}") from error


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def packed(values: NDArray[np.bool_]) -> str:
    """Booleans as hexadecimal digits, four to one."""
    return np.packbits(values).tobytes().hex()


def unpacked(text: str, count: int) -> NDArray[np.bool_]:
    """The `count` booleans that `packed` made `text` of."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count).astype(bool)
