"""Resuming: a scratch folder a fingerprint, checkpoints that are whole or absent, one process a folder.

DVC deletes a stage's outputs before it runs the stage again, so what a killed run left behind lives in
`.scratch/<fingerprint>/`. The fingerprint hashes settings, code and input data: a run of anything else starts afresh.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

import turncoat
from turncoat.errors import TurncoatError
from turncoat.files import sha256, write_atomic


def fingerprint(settings: Mapping[str, Any], inputs: Iterable[Path | str]) -> str:
    """Hex digest of the settings, the library's code, torch's version and the input files."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(torch.__version__.encode())
    root = Path(turncoat.__file__).parent
    rooms = ("attacks", "data", "methods", "models", "training")
    files = [path for room in rooms for path in (root / room).glob("*.py")]
    files.append(root / "randomness.py")
    for path in sorted(files):
        digest.update(f"{path.relative_to(root)} {sha256(path)}\n".encode())
    for given in inputs:
        digest.update(f"{sha256(given)}\n".encode())
    return digest.hexdigest()[:32]


class Scratch:
    """The locked folder of one piece of work; `with Scratch(key) as scratch: ... scratch.clear()`.

    Raises:
        TurncoatError: another process is at the same work; its process id is named.
    """

    def __init__(self, key: str, root: Path | str = ".scratch") -> None:
        self.folder = Path(root) / key

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / "lock", "a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            self._lock.close()
            raise TurncoatError(
                f"{self.folder}: process {holder} is at this very work; wait for it or end it"
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        for stray in self.folder.glob(".*.tmp"):  # a write that a kill cut short
            stray.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    def clear(self) -> None:
        """Remove the folder: the work is done and its outputs are in place."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Checkpoint:
    """Two generations of a training state, each with its checksum; a damaged one is passed over."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / "checkpoint-0.pt", folder / "checkpoint-1.pt"]

    def save(self, state: dict[str, Any], number: int) -> None:
        """Write generation `number`; the one before stays until the next call."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        header = f"{number:012d} {hashlib.sha256(content).hexdigest()}\n".encode()
        write_atomic(self.files[number % 2], header + content)

    def load(self) -> dict[str, Any] | None:
        """The newest whole state, or None."""
        found = []
        for path in self.files:
            if path.exists():
                header, _, content = path.read_bytes().partition(b"\n")
                number, _, checksum = header.decode("ascii", "replace").partition(" ")
                if hashlib.sha256(content).hexdigest() == checksum:
                    found.append((int(number), content))
                else:
                    print(f"{path}: damaged, going back to the checkpoint before", flush=True)
        if not found:
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(max(found)[1]), weights_only=True, map_location="cpu")
        return state
