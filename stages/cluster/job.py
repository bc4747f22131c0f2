"""What runs on a node: one cell of the study, or its closing. Slurm may run a job twice; the second finds it done."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.cluster.done import held, is_done, mark, take_in
from stages.marks import Marks
from stages.pipeline import Cell
from stages.places import OWN, refused
from stages.walk import LOGS
from turncoat.closure import ROOT, checksums
from turncoat.errors import TurncoatError
from turncoat.files import read_json

CODE = "data/code/"
PATIENCE = 3600.0  # seconds for a file system to come back
TRIES = 5  # at a cell whose log tells of a file system that was away
LOOK = 2.0  # seconds between looks at it
AWAY = tuple(os.strerror(number) for number in (errno.EROFS, errno.ESTALE, errno.EIO))
LINES = 3  # of a log, when its cell failed


class _Checkpointed:
    """A job that may be sent away before its end and goes on from what it left, without anything to carry along."""

    def checkpoint(self) -> Any:
        """submitit asks for this before it queues the job again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass
class CellJob(_Checkpointed):
    """Run one cell's command, as DVC would, and leave a mark.

    Attributes:
        cells: the cell and all that it follows, by name. digest: of what it rests on, when it was submitted.
    """

    folder: str
    name: str
    cells: Mapping[str, Cell]
    digest: str

    def __call__(self) -> str:
        """Its last line.

        Raises:
            TurncoatError: it failed, or settings or code are no longer those that it was submitted with.
        """
        os.chdir(self.folder)
        cell = self.cells[self.name]
        _writable()
        left = TRIES
        with held(f"running/{self.name}"):  # a node that Slurm took for dead may still be at it
            while not is_done(cell, self.digest):
                self._check(cell)
                if _run(cell):
                    mark(cell, self.digest)
                    break
                left -= 1
                if not left:  # the folder can be written to: what cannot lies elsewhere
                    raise TurncoatError(f"{cell}: failed {TRIES} times; {_last_lines(LOGS / f'{cell}.log', LINES)}")
                time.sleep(LOOK)
                _writable()
        return _last_lines(LOGS / f"{cell}.log", 1)

    def _check(self, cell: Cell) -> None:
        listed = [read_json(dep) for dep in cell.deps if dep.startswith(CODE)]
        current = all(code == checksums(ROOT / path for path in code) for code in listed)
        if not current or Marks(self.cells).digest(cell) != self.digest:
            raise TurncoatError(f"{cell}: settings or code were changed after it was submitted; run `make repro` again")


@dataclass
class ClosingJob(_Checkpointed):
    """When no cell is left in the queue: enter what is finished into dvc.lock, and make the report if that is all."""

    folder: str
    cells: Mapping[str, Cell]
    wanted: list[str]

    def __call__(self) -> str:
        """What was done.

        Raises:
            TurncoatError: `dvc repro` failed.
        """
        os.chdir(self.folder)
        _writable()
        with held("head"):  # a head on another node must not work with DVC meanwhile
            return self._closed()

    def _closed(self) -> str:
        entered = take_in(self.cells)
        marks = Marks(self.cells)
        missing = [name for name in self.wanted if not is_done(self.cells[name], marks.digest(self.cells[name]))]
        said = f"{len(entered)} cells entered into dvc.lock"
        if missing:
            return f"{said}; {len(missing)} are not finished, {missing[0]} among them: no report"
        if subprocess.run(["dvc", "--wait-for-lock", "repro"]).returncode:
            raise TurncoatError("`dvc repro` failed")
        return said


def _run(cell: Cell) -> bool:
    """Run the command of a cell; False: the file system went away under it.

    Raises:
        TurncoatError: it failed; the last lines of its log.
    """
    log = LOGS / f"{cell}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        for out in map(Path, cell.outs):  # as DVC does it; what is unfinished lies elsewhere
            shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
        with open(log, "a") as file:
            started = file.tell()
            environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"DVC_STAGE": cell.name, "DVC_ROOT": os.getcwd()}
            print(f"{cell}: log in {log}", flush=True)
            code = subprocess.run(cell.command, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
        if -code == signal.SIGUSR2:  # meant for this process as well: submitit queues the job again
            time.sleep(60)
        said = log.read_text()[started:]
    except OSError as error:
        if error.strerror in AWAY:
            print(f"{cell}: {error}", flush=True)
            return False
        raise
    if code and any(reason in said for reason in AWAY):
        print(f"{cell}: {_tail(said, 1)}", flush=True)
        return False
    if code:
        raise TurncoatError(f"{cell} failed: {_tail(said, LINES)}")
    return True


def _writable() -> None:
    """Wait until the folder can be written to.

    Raises:
        TurncoatError: it could not for `PATIENCE` seconds.
    """
    began = time.monotonic()
    folders = [path for path in (Path("."), Path(OWN), Path("models"), Path("reports")) if path.is_dir()]
    while why := next(filter(None, map(refused, folders)), None):
        if time.monotonic() - began > PATIENCE:
            raise TurncoatError(f"{Path.cwd()}: nothing can be written there ({why})")
        print(f"waiting: nothing can be written ({why})", file=sys.stderr, flush=True)
        time.sleep(LOOK)


def _last_lines(log: Path, count: int) -> str:
    return _tail(log.read_text(), count) if log.exists() else ""


def _tail(text: str, count: int) -> str:
    return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-count:])
