"""Which cells jobs have finished: a mark each. And their entry into dvc.lock, of all at once, by one process at a time.

A mark says what the results rest on (`stages.marks`) and what the files looked like when they were made. It holds as
long as neither differs: results that another run wrote over, under other settings, are never entered as these.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stages.marks import Marks
from stages.pipeline import Cell
from turncoat.files import read_json, write_json

FOLDER = Path(".scratch/cluster")


def mark(cell: Cell, digest: str) -> None:
    """The cell's files are made, from what `digest` stands for."""
    write_json(_file(cell), {"digest": digest, "files": _state(cell)})


def is_done(cell: Cell, digest: str) -> bool:
    """Whether a job has made the cell's files from what `digest` stands for, and they are there as it left them."""
    file = _file(cell)
    return file.exists() and read_json(file) == {"digest": digest, "files": _state(cell)}


def _file(cell: Cell) -> Path:
    return FOLDER / "done" / f"{cell}.json"


def _state(cell: Cell) -> str:
    """Hex SHA-256 over names, sizes and times of the cell's files: no file is read."""
    seen = []
    for out in map(Path, cell.outs):
        for path in [out, *sorted(out.rglob("*"))]:
            if not path.is_dir():
                about = path.stat() if path.exists() else None
                seen.append([str(path), about and about.st_size, about and about.st_mtime_ns])
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


@contextmanager
def held(name: str) -> Iterator[None]:
    """One process at a time, on any node: the lock ends with the process."""
    file = FOLDER / name
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def finished(plan: Mapping[str, Cell], names: Iterable[str]) -> list[str]:
    """Those of the cells that jobs have finished, on the settings and code of now."""
    marks = Marks(plan)
    return [name for name in names if _file(plan[name]).exists() and is_done(plan[name], marks.digest(plan[name]))]


def take_in(plan: Mapping[str, Cell]) -> list[str]:
    """Enter the finished cells that DVC does not know of yet into dvc.lock and its cache; their names.

    What `dvc commit --force` does with them, with one write of dvc.lock: it takes a minute at a thousand cells. DVC
    lays a link or a copy from its cache in the place of a file, so that marks are made anew: a head that has not looked
    for a while must still find these cells done.
    """
    from dvc.repo import Repo

    names = finished(plan, (name for name in plan if _file(plan[name]).exists()))
    with held("taking-in"), Repo(_wait_for_lock=True) as repo, repo.lock:
        known = {stage.addressing: stage for stage in repo.index.stages}
        new = [known[name] for name in names if name in known and known[name].changed()]
        for stage in new:
            stage.save()
            stage.commit()
        if new:
            new[0].dvcfile.dump_stages(new, update_pipeline=False)
        for cell in (plan[stage.addressing] for stage in new):
            mark(cell, read_json(_file(cell))["digest"])
        return [stage.addressing for stage in new]
