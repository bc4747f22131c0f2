"""The folders that a study writes to, looked at before anything runs. Not a stage itself.

DVC makes outputs anew in their place: it refuses some links after the work is done, and replaces others with a folder
of its own. Room elsewhere is what its cache is for.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from turncoat.errors import TurncoatError

MADE = ("data", "models", "reports")
OWN = ".scratch"  # of unfinished work: DVC does not look there, so it may be a link


def make_places() -> None:
    """Make the folder that `report` rests on, in which a study of masks and boxes alone has nothing."""
    Path("data/perturbed").mkdir(parents=True, exist_ok=True)


def check_places(datasets: Iterable[str]) -> None:
    """Refuse folders that cannot be written to, and links where DVC makes outputs.

    Args:
        datasets: names of the study's data sets, whose folders are looked at too.

    Raises:
        TurncoatError: the folder, and what to do instead.
    """
    for folder in (*MADE, *_within(datasets)):
        if (path := Path(folder)).is_symlink():
            raise TurncoatError(
                f"{path}: a symbolic link (to {path.readlink()}), where DVC makes outputs anew: remove the link. To "
                "keep what is large on another disk: `dvc cache dir /that/disk/cache`, `dvc config cache.type symlink`"
            )
    for folder in (".", *MADE, OWN, *_within(datasets)):
        path = Path(folder)
        if path.is_symlink() and not path.exists():
            raise TurncoatError(f"{path}: a symbolic link to {path.readlink()}, which is not there; make that folder")
        if path.exists() and not path.is_dir():
            raise TurncoatError(f"{path}: a file, where the study wants a folder; move it away")
        if path.is_dir() and (why := refused(path)):
            raise TurncoatError(
                f"{path.absolute()}: nothing can be written there ({why}): `chmod u+w` it, or copy the repository to a "
                "disk that is writable; `dvc cache dir /other/disk/cache` moves only what is large"
            )


def _within(datasets: Iterable[str]) -> Iterator[str]:
    yield from ("data/perturbed", "data/code", "reports/records", "reports/analysis")
    for name in datasets:
        yield from (f"data/{name}", f"models/{name}")


def refused(folder: Path) -> str | None:
    """Why nothing can be written there; None: it can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__
