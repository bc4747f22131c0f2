"""The forwarder seen from outside: start it, wait for it, take its place, hear its complaints."""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from turncoat.errors import TurncoatError
from turncoat.tracking.paths import database, destination, enabled, folder, is_locked, root, spools, warn


def start_forwarder(folder: Path) -> subprocess.Popen[bytes] | None:
    """Start the checkout's forwarder, unless it runs: it inherits the lock that says so, hence there is never a second.

    Detached, with streams of its own: it outlives the stage, neither DVC nor a terminal waits for it or ends it.
    """
    lock = os.open(folder / "forwarder.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        package = str(Path(__file__).parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        with (folder / "forwarder.log").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "turncoat.tracking.forwarder", str(lock)],
                cwd=root(),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,
            )
    except BlockingIOError:
        return None
    finally:
        os.close(lock)
    _children.append(child)
    return child


_children: list[subprocess.Popen[bytes]] = []  # kept, or Python warns of a child that was not waited for


@contextlib.contextmanager
def take_over(folder: Path, timeout: float = 60.0) -> Iterator[None]:
    """Be the forwarder for a while: one that runs is asked to leave after its present request.

    Raises:
        TurncoatError: it did not, within `timeout` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, stop = os.open(folder / "forwarder.lock", os.O_RDWR | os.O_CREAT, 0o644), folder / "stop"
    until = time.monotonic() + timeout
    try:
        while True:
            stop.touch()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TurncoatError(
                        f"{folder}: another process sends these rows to MLflow; try again later"
                    ) from None
                time.sleep(0.1)
        stop.unlink(missing_ok=True)
        yield
    finally:
        stop.unlink(missing_ok=True)
        os.close(lock)


def asked_to_leave(folder: Path) -> bool:
    """Whether somebody waits to take the forwarder's place. A note that is no longer renewed was left by a crash."""
    try:
        return time.time() - (folder / "stop").stat().st_mtime < 5
    except FileNotFoundError:
        return False


def flush(timeout: float | None = None) -> bool:
    """Wait until all closed runs are in MLflow, but not for a server that is known to be down.

    Args:
        timeout: seconds; by default 10 for the checkout's own store and 4 for a server, which may never answer.

    Returns:
        whether all is sent. If not, one line on stderr says so.
    """
    if not enabled() or not folder().exists():
        return True
    if timeout is None:
        timeout = 10 if database(destination()) else 4
    until, child = time.monotonic() + timeout, None
    while waiting := [path for path in spools(folder()) if not is_locked(path)]:
        if child and child.poll():
            warn(f"{len(waiting)} runs not sent, see {folder() / 'forwarder.log'}; `make mlflow` tries again")
            return False
        child = start_forwarder(folder()) or child
        if outage(folder()):
            warn_of_outage(folder(), again=True)
            return False
        if time.monotonic() > until:
            warn(f"{len(waiting)} runs are still being sent, in the background")
            return False
        time.sleep(0.05)
    return True


# --------------------------------------------------------------------------------------------------------- the warning


def outage(folder: Path) -> str | None:
    """What the forwarder said of a server it cannot reach, until it reaches it."""
    for name in ("outage", "outage.told"):
        try:
            return (folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
    return None


def warn_of_outage(folder: Path, again: bool = False) -> None:
    """Say so once an outage, whichever of the stages takes the note down first; `again`: also after that."""
    reason = outage(folder)
    try:
        (folder / "outage").rename(folder / "outage.told")
    except FileNotFoundError:
        if not again:
            return
    warn(f"rows not sent ({reason}); nothing is lost: they stay in {folder}, `make mlflow` sends them")
