"""Resuming: a scratch folder a fingerprint, checkpoints that are whole or absent, one process a folder.

DVC deletes a stage's outputs before it runs the stage again, so what a killed run left behind lives in
`.scratch/<fingerprint>/`. The fingerprint hashes settings, code and input data: a run of anything else starts afresh.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import torch

from turncoat.closure import code_checksum
from turncoat.errors import TurncoatError
from turncoat.files import sha256, write_atomic


def fingerprint(settings: Mapping[str, Any], inputs: Iterable[Path | str], code: Iterable[str] = ()) -> str:
    """Hex digest of settings, code, torch's version and the input files.

    Args: code: dotted names of the modules that do the work; the library's files behind them count, comments do not.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(f"{torch.__version__}\n{code_checksum(code)}\n".encode())
    for given in inputs:
        digest.update(f"{sha256(given)}\n".encode())
    return digest.hexdigest()[:32]


def duration_file(key: str) -> Path:
    """Where the seconds of a training are kept: apart from its outputs, which the same settings make the same."""
    return Path(".scratch") / "durations" / f"{key}.json"


def duration(keys: Iterable[str]) -> float | None:
    """Seconds that trainings took in all; None where it is not known of one, for its weights came out of a cache."""
    files = [duration_file(key) for key in keys]
    return sum(json.loads(file.read_text())["seconds"] for file in files) if all(map(Path.exists, files)) else None


class Scratch:
    """The locked folder of one piece of work; `with Scratch(key, "training digits/pgd/0") as scratch: ...`.

    What is in it outlives a kill; `clear` ends the work and removes it, together with what runs of the same work with
    other settings, code or data left. Folders of unfinished work stay, and so does all that a process is at.

    Args:
        key: the work's `fingerprint`. work: its name, the same for all fingerprints ("": one without others).

    Raises:
        TurncoatError: another process is at the same work; its process id is named.
    """

    def __init__(self, key: str, work: str = "", root: Path | str = ".scratch") -> None:
        self.folder = Path(root) / key
        self.work = work

    def __enter__(self) -> Self:
        while (lock := _lock(self.folder)) is None:  # the holder has just finished and removed the folder: once more
            pass
        self._lock = lock
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()} {self.work}\n")
        lock.flush()
        for stray in self.folder.glob(".*.tmp"):  # a write that a kill cut short
            stray.unlink()
        if self._empty() and self._others():
            print(f"{self.work}: begun afresh; an unfinished run had other settings, code or data", flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.folder.exists() and self._empty():
            self.clear()
        self._lock.close()

    def clear(self) -> None:
        """Remove the folder, and those of other fingerprints: the work is done and its outputs are in place."""
        for other in self._others():
            with contextlib.suppress(TurncoatError), open(other / "lock") as lock:
                _flock(lock, other)
                shutil.rmtree(other, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _empty(self) -> bool:
        return {path.name for path in self.folder.iterdir()} <= {"lock"}

    def _others(self) -> list[Path]:
        """Folders of the same work with another fingerprint."""
        if not self.work:
            return []
        locks = [path for path in self.folder.parent.glob("*/lock") if path.parent != self.folder]
        return [path.parent for path in locks if path.read_text().partition(" ")[2].strip() == self.work]


def _lock(folder: Path) -> TextIO | None:
    """The folder's lock file, held; None if the folder was removed meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = open(folder / "lock", "a+")  # noqa: SIM115 - held as long as the work
    except FileNotFoundError:
        return None
    try:
        _flock(lock, folder)
        if os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / "lock")):
            return lock
    except FileNotFoundError:
        pass
    except TurncoatError:
        lock.close()
        raise
    lock.close()
    return None


def _flock(lock: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().partition(" ")[0] or "unknown"
        raise TurncoatError(f"{folder}: process {holder} is at this very work; wait for it or end it") from None


class Checkpoint:
    """Two generations of a training state, each with its checksum; a damaged one is passed over."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / "checkpoint-0.pt", folder / "checkpoint-1.pt"]
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the work took up to now, with the runs that it was resumed from."""
        return time.monotonic() - self._began

    def save(self, state: dict[str, Any], number: int) -> None:
        """Write generation `number`; the one before stays until the next call."""
        buffer = io.BytesIO()
        torch.save({"state": state, "seconds": self.seconds}, buffer)
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
        saved = torch.load(io.BytesIO(max(found)[1]), weights_only=True, map_location="cpu")
        self._began = time.monotonic() - saved["seconds"]
        state: dict[str, Any] = saved["state"]
        return state
