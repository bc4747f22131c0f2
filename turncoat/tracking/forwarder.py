"""The one process of a checkout that talks to MLflow: it follows the spool files and leaves when they are all sent.

The stages start it (`turncoat.tracking.relay.start_forwarder`) and hand over the lock that they hold for it.
"""

import fcntl
import json
import os
import re
import shutil
import sys
import time
import traceback
from pathlib import Path

from turncoat.tracking.paths import database, destination, folder, is_locked, spools, without_password
from turncoat.tracking.relay import asked_to_leave
from turncoat.tracking.store import Point, Run, Store, is_refused

IDLE = 60.0  # seconds without a row or a living writer before it leaves: more than the pause between most stages
LOOK = 0.25  # seconds between looks at the files
RETRY = 5.0  # seconds before a server that failed is asked again


class Reader:
    """One spool file and how far it is sent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done = False
        self._offset = 0
        self._run: Run | None = None

    def send(self, store: Store) -> bool:
        """Send the rows that are new. Returns whether there were any; `done` says that the last row is sent."""
        abandoned = not is_locked(self.path)  # asked first: a writer that ends after this still gets its last rows sent
        with self.path.open("rb") as file:
            file.seek(self._offset)
            rows = file.read()
        rows = rows[: rows.rfind(b"\n") + 1]
        points: list[Point] = []
        now = time.time_ns() // 1_000_000
        for line in rows.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                print(f"{self.path.name}: a line is not JSON and is left out: {line[:80]!r}", flush=True)
                continue
            now = row["time"]
            if "open" in row:
                self._run = store.open(row)
            elif self._run is None:
                continue
            elif "step" in row:  # rows of curves are gathered: one request for all that came since the last look
                points += [(name, row["step"], value, now) for name, value in row["metrics"].items()]
            elif "final" in row:
                store.final(self._run, row["final"], now)
            elif "tags" in row:
                store.tag(self._run, row["tags"])
            elif "artifact" in row:
                store.artifact(self._run, self.path.with_suffix(".files") / row["artifact"], row["folder"])
            elif "close" in row:
                self._finish(store, points, row["close"], now)
                points = []
        if self._run and points:
            store.curve(self._run, points)
        if abandoned and not self.done:
            self._finish(store, [], "KILLED", now)
        self._offset += len(rows)
        return bool(rows) or self.done

    def _finish(self, store: Store, points: list[Point], status: str, now: int) -> None:
        if self._run:
            store.curve(self._run, points)
            store.close(self._run, status, now)
        self.done = True


class Forwarder:
    """All spool files of a folder, in the order in which they were begun."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self._uri = folder, uri
        self.made = 0  # new runs
        self._store: Store | None = None
        self._inode: int | None = None
        self._readers: dict[Path, Reader] = {}

    def send(self) -> int:
        """Connect, send all that is new, remove the files that are wholly sent; returns the number of files with news.

        Raises:
            Exception: whatever MLflow raised. The next call begins with fresh connections and sends every file from
                its first row on: what arrived already is recognised.
        """
        try:
            return self._send()
        except Exception:
            self._store = None
            self._readers.clear()
            raise

    def _send(self) -> int:
        news, refused = 0, None
        if self._store is None:
            self._store = Store(self._uri)
            self._inode = inode(self._uri)
        for path in spools(self.folder):
            reader = self._readers.setdefault(path, Reader(path))
            try:
                news += reader.send(self._store)
            except Exception as error:
                if not is_refused(error):
                    raise
                refused = error  # one run that the server does not take must not keep back the others
                del self._readers[path]
                continue
            self.made, self._store.made = self.made + self._store.made, 0
            if reader.done:
                shutil.rmtree(path.with_suffix(".files"), ignore_errors=True)
                path.unlink()
                del self._readers[path]
        if refused:
            raise refused
        return news

    def lost(self) -> bool:
        """Whether somebody removed the store; MLflow keeps its connections and would write into the void."""
        return self._store is not None and self._inode != inode(self._uri)


def inode(uri: str) -> int | None:
    """The identity of an SQLite store's file."""
    path = database(uri)
    return path.stat().st_ino if path and path.exists() else None


def serve(folder: Path, uri: str, lock: int) -> None:
    """Send until nothing has happened for `IDLE` seconds, or until somebody asks to take its place.

    It leaves also when the store or the spool folder was removed: the next look of a stage starts another one.
    """
    forwarder = Forwarder(folder, uri)
    tell(folder, None)
    active = time.monotonic()
    while not asked_to_leave(folder) and not forwarder.lost() and holds(lock, folder):
        pause = LOOK
        seen = set(spools(folder))
        try:
            if forwarder.send():
                active = time.monotonic()
            tell(folder, None)
        except Exception as error:
            tell(folder, short(error))
            pause = RETRY
        if any(is_locked(path) for path in seen):
            active = time.monotonic()
        if time.monotonic() - active > IDLE:
            fcntl.flock(lock, fcntl.LOCK_UN)
            if set(spools(folder)) <= seen:
                return
            try:  # a stage began after the last look and trusted the lock
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            active = time.monotonic()
        until = time.monotonic() + pause
        while time.monotonic() < until and not asked_to_leave(folder):
            time.sleep(LOOK)


def holds(lock: int, folder: Path) -> bool:
    """Whether the lock is still the one that the stages see."""
    try:
        return os.fstat(lock).st_ino == (folder / "forwarder.lock").stat().st_ino
    except FileNotFoundError:
        return False


def tell(folder: Path, reason: str | None) -> None:
    """Leave a note for the stages that MLflow is out of reach, or take it back."""
    if reason is None:
        for name in ("outage", "outage.told"):
            (folder / name).unlink(missing_ok=True)
    elif not (folder / "outage.told").exists():
        (folder / "outage.new").write_text(reason, encoding="utf-8")
        (folder / "outage.new").rename(folder / "outage")
        traceback.print_exc()


def short(error: Exception) -> str:
    """An error on one line, without passwords in addresses."""
    text = without_password(str(error).strip() or type(error).__name__)
    if dead := re.match(r"API request to (\w+://[^/]+)\S* failed with", text):
        return f"{dead[1]} does not answer"
    return text.splitlines()[0][:300]


if __name__ == "__main__":
    os.nice(10)  # the training comes first
    serve(folder(), destination(), lock=int(sys.argv[1]))
