"""The side of the stages: append rows to a file, and see to it that the forwarder runs.

A spool file is JSON lines: `open` (who and with which settings), `metrics`, `tags`, `artifact`, `close`. Its writer
holds an exclusive `flock` on it, so the forwarder knows a killed writer from a slow one.
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from turncoat.tracking.paths import enabled, folder, root, warn
from turncoat.tracking.relay import start_forwarder, warn_of_outage

CHECK_SECONDS = 60.0  # between looks of a long training at whether the forwarder still lives


class Tracker:
    """Takes a run's rows. This base class drops them: it is what `TURNCOAT_TRACKING=off` gives."""

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """One row of a curve, e.g. of epoch `step` (from 1); a key `epoch` and values of None are left out."""

    def final(self, measures: Mapping[str, Any]) -> None:
        """Measures of the whole run, such as `{"test/clean": 0.96}`; nested mappings are joined by `/`.

        A call replaces all measures that share the first part of a name (`test`) with one of its own.
        """

    def tag(self, tags: Mapping[str, Any]) -> None:
        """Facts about the run that are not settings: commit, checksums, seconds."""

    def artifact(self, path: Path | str, folder: str | None = None) -> None:
        """A file (or a folder, wholly) to show with the run, under `folder`. It is copied at once."""

    def close(self, status: str = "FINISHED") -> None:
        """The last row; `status` is MLflow's FINISHED, FAILED or KILLED."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close("FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED")


class SpoolTracker(Tracker):
    """Appends each row to a file of its own, flushed at once. No fault of the disk ever reaches the caller."""

    def __init__(self, header: dict[str, Any], at: float | None = None) -> None:
        self._folder = folder()
        self._at = at
        self._checked = 0.0
        self._file = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path = self._folder / f"{time.time_ns():020d}-{os.getpid()}.jsonl"
            hidden = self._path.with_suffix(".new")
            self._file = hidden.open("a", encoding="utf-8")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._write(header)
            hidden.rename(self._path)  # seen only with its lock and header: without them it would look abandoned
        except OSError as error:
            self._lose(error)
        self._look_after_the_forwarder()

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        self._write({"step": step, "metrics": numbers({k: v for k, v in values.items() if k != "epoch"})})
        if time.monotonic() - self._checked > CHECK_SECONDS:
            self._look_after_the_forwarder()

    def final(self, measures: Mapping[str, Any]) -> None:
        self._write({"final": numbers(measures)})

    def tag(self, tags: Mapping[str, Any]) -> None:
        self._write({"tags": {key: str(value) for key, value in tags.items() if value is not None}})

    def artifact(self, path: Path | str, folder: str | None = None) -> None:
        if self._file is None:
            return
        path = Path(path)
        kept = self._path.with_suffix(".files") / (folder or "") / path.name
        try:  # a copy, because the file may be gone when it is sent: `dvc exp run --temp` removes its folder
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(path, kept, dirs_exist_ok=True) if path.is_dir() else shutil.copyfile(path, kept)
        except OSError as error:
            warn(f"{path} is not shown in MLflow ({error})")
            return
        self._write({"artifact": str(kept.relative_to(self._path.with_suffix(".files"))), "folder": folder})

    def close(self, status: str = "FINISHED") -> None:
        if self._file is None:
            return
        self._write({"close": status})
        if self._file is not None:
            self._file.close()
        self._file = None
        self._look_after_the_forwarder()

    def _write(self, row: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            seconds = time.time() if self._at is None else self._at
            self._file.write(json.dumps({"time": round(1000 * seconds), **row}) + "\n")
            self._file.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        warn(f"rows cannot be kept ({error}); training goes on, and `make mlflow` rebuilds the run from its results")
        self._file = None

    def _look_after_the_forwarder(self) -> None:
        self._checked = time.monotonic()
        try:
            start_forwarder(self._folder)
            warn_of_outage(self._folder)
        except OSError as error:
            warn(f"the forwarder cannot be started ({error}); `make mlflow` sends the rows")


def open(
    cell_key: str,
    fingerprint: str,
    stage: str | None = None,
    settings: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    at: float | None = None,
) -> Tracker:
    """Begin, or continue, the run of a cell.

    Args:
        cell_key: the run's name: `dataset/arm/seed`, or `report`.
        fingerprint: of the cell's training; the same key and fingerprint are the same run, whoever writes to it.
        stage: the DVC stage's name, `$DVC_STAGE` unless given.
        settings: become the run's parameters, nested names joined by dots.
        tags: facts that are not settings (commit, device, ...).
        at: seconds since 1970, for a run of the past that is told again from its files.

    Raises:
        TurncoatError: `TURNCOAT_TRACKING` is neither `on` nor `off`.
    """
    if not enabled():
        return Tracker()
    stage = stage or os.environ.get("DVC_STAGE")
    more = {f"stage.{stage.split('@')[0]}" if "@" in stage else "stage": stage} if stage else {}
    if len(parts := cell_key.split("/")) == 3:
        more |= dict(zip(("dataset", "arm", "seed"), parts, strict=True))
    elsewhere = Path.cwd().resolve() != root()
    header = {
        "open": cell_key,
        "fingerprint": fingerprint,
        "params": flat(settings or {}, "."),
        "tags": more | {key: str(value) for key, value in (tags or {}).items() if value is not None},
        # a `dvc exp run --temp` stands beside the checkout's own runs, it does not replace them
        "experiment": os.environ.get("DVC_EXP_NAME") if elsewhere else None,
        "retold": at is not None,
    }
    return SpoolTracker(header, at)


def flat(values: Mapping[str, Any], joint: str, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, names joined by `joint`."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, joint, f"{prefix}{key}{joint}")
        else:
            result[f"{prefix}{key}"] = value if isinstance(value, str | int | float | bool | None) else str(value)
    return result


def numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested mappings of numbers (also scalars of torch and numpy) as one; what is no number is left out."""
    result: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= numbers(value, f"{prefix}{key}/")
        else:
            with contextlib.suppress(TypeError, ValueError):
                result[f"{prefix}{key}"] = float(value)
    return result
