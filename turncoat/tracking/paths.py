"""Where rows wait and where they go."""

import fcntl
import getpass
import hashlib
import os
import re
import sys
from pathlib import Path
from urllib.parse import quote, unquote

from turncoat.errors import TurncoatError


def root() -> Path:
    """The checkout that owns the store: `$DVC_ROOT`, which in `dvc exp run --temp` still names the main checkout."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def destination() -> str:
    """Where MLflow keeps the runs: `$MLFLOW_TRACKING_URI`, or the store that `mlflow ui` opens in the checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{quote(str(root()))}/mlflow.db"


def experiment() -> str:
    """The experiment's name: `$MLFLOW_EXPERIMENT_NAME`, or `turncoat`; on a server with whose study it is.

    On a server a cell of one study would otherwise supersede its namesake of another.
    """
    if given := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        return given
    return "turncoat" if database(destination()) else f"turncoat {getpass.getuser()}/{root().name}"


def database(uri: str) -> Path | None:
    """The file of an SQLite store."""
    path = uri.removeprefix("sqlite:///")
    return Path(unquote(path)) if path != uri else None


def folder() -> Path:
    """The spool folder, one for each destination: rows meant for one server are not sent to another behind its back.

    Named by a hash, because an address may hold a password.
    """
    name = hashlib.sha256(destination().encode()).hexdigest()[:8]
    return root() / ".scratch" / "tracking" / name


def enabled() -> bool:
    """False when `TURNCOAT_TRACKING=off`.

    Raises:
        TurncoatError: the variable says something else than `on` or `off`.
    """
    value = os.environ.get("TURNCOAT_TRACKING") or "on"
    if value not in ("on", "off"):
        raise TurncoatError(f"TURNCOAT_TRACKING={value}: not known; it is `on` (as when unset) or `off`")
    return value == "on"


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock of this file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def spools(folder: Path) -> list[Path]:
    """The spool files, oldest first."""
    return sorted(folder.glob("*.jsonl"))


def without_password(text: str) -> str:
    """Addresses in a text that people read carry no password."""
    return re.sub(r"//[^/@\s]*@", "//***@", text)


def warn(message: str) -> None:
    print(f"MLflow: {message}", file=sys.stderr, flush=True)
