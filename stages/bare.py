"""Run the study's stages on a machine without DVC and MLflow, in slices: a rented GPU, say. Not a stage itself.

    python -m stages.bare --minutes 8

Runs what is not done yet, several cells at a time, and stops after the given minutes; run it again and it goes on, in
the middle of a training from its last checkpoint. Needs torch, torchvision, pydantic, safetensors, scipy, scikit-learn,
tqdm and PyYAML. Tracking is off. A cell is done for its part of params.yaml, its code, and those of the cells it
follows, as dvc.yaml has it: a new seed or arm adds its own cells and the analysis, a comment nothing.

There are two ways back.

Results alone, some megabytes without weights and images, into any checkout with the same params.yaml and claims; its
report holds every table, figure and verdict, while `dvc repro` there would compute everything anew:

    python -m stages.bare --pack results.tar.gz          there
    tar xzf results.tar.gz && python -m stages.report    here

Or all of data/, models/ and reports/, weights too, into a checkout where DVC takes them in as its own:

    dvc repro inputs && dvc commit --force download baseline pretrain perturb finetune evaluate analyse && dvc repro

Where arms are tuned, their stages stand between: ... finetune evaluate trial finetune-tuned evaluate-tuned analyse.

  TURNCOAT_WORKERS   cells at a time, as for `make repro`
"""

import argparse
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from stages import warm
from stages.common import run
from stages.marks import Marks
from stages.pipeline import Cell, cells
from stages.walk import LOGS, Unfinished, behind, walk, workers
from turncoat.errors import TurncoatError
from turncoat.reading import read_yaml
from turncoat.settings import load

UNFINISHED = 3  # exit status: there is more to do
WARM_FROM = 2  # minutes: in a shorter slice a warm start costs more than it saves
# What the report is made of, and what says where it came from.
RESULTS = (
    "reports/records/**/*",
    "reports/analysis/**/*",
    "reports/times/**/*",
    "models/**/*.json",
    "data/perturbed/**/perturbed.json",
    "data/perturbed/**/examples.npz",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--minutes", type=float, help="run, and stop after so many; at least 0.1")
    wanted.add_argument("--pack", type=Path, metavar="FILE", help="write the results alone to a .tar.gz")
    given = parser.parse_args()
    if given.pack:
        pack(given.pack)
        return
    if not given.minutes >= 0.1:
        raise TurncoatError(f"--minutes {given.minutes}: give a number from 0.1")
    deadline = time.monotonic() + 60 * given.minutes
    settings = load()
    at_once = workers()
    # the report draws, with packages that are not here
    plan = {name: cell for name, cell in cells(read_yaml("params.yaml")).items() if cell.stage != "report"}
    LOGS.mkdir(parents=True, exist_ok=True)
    marks = Marks(plan)
    with warm.offered(given.minutes >= WARM_FROM, bool(settings.study.dense.datasets)) as environment:
        if settings.own_files or not marks.done(plan["inputs"]):
            execute(plan["inputs"], environment)
            marks.set(plan["inputs"])
        waiting = [name for name, cell in plan.items() if not marks.done(cell)]
        left = walk(plan, behind(plan, waiting), in_slices(marks, environment, deadline), at_once)
    if left:
        print(f"{left} cells left: run it again")
        sys.exit(UNFINISHED)
    print("all cells are done")


def in_slices(marks: Marks, environment: dict[str, str], deadline: float) -> Callable[[list[Cell]], str]:
    """What runs a chain of cells up to the deadline (of `time.monotonic`), and marks each that is done."""

    def chain_of(chain: list[Cell]) -> str:
        said = ""
        for cell in chain:
            said = execute(cell, environment, deadline)
            marks.set(cell)
        return said

    return chain_of


def execute(cell: Cell, environment: dict[str, str], deadline: float | None = None) -> str:
    """Run a cell's command up to the deadline, of `time.monotonic`; its last line.

    Raises:
        Unfinished: the deadline came before its end, or its beginning.
        TurncoatError: it failed; its log is named.
    """
    left = None if deadline is None else deadline - time.monotonic()
    if left is not None and left <= 0:
        raise Unfinished("waits for the next slice")
    log = LOGS / f"{cell}.log"
    program = "python" if "TURNCOAT_WARM" in environment else cell.command[0]
    with open(log, "w") as file:
        try:
            code = subprocess.run(
                [program, *cell.command[1:]],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment | {"TURNCOAT_TRACKING": "off"},
                timeout=left,
            ).returncode
        except subprocess.TimeoutExpired:
            raise Unfinished("cut off; it goes on from its last checkpoint") from None
    lines = log.read_text().strip().splitlines() or [""]
    if code:
        raise TurncoatError(f"{cell} failed: {lines[-1]}; see {log}")
    return lines[-1]


def pack(target: Path) -> None:
    """Write the results to a .tar.gz; what is unfinished is not among them.

    Raises:
        TurncoatError: there are none in this folder.
    """
    files = sorted({path for pattern in RESULTS for path in Path().glob(pattern) if path.is_file()})
    records = sum(path.name == "record.json" for path in files)
    if not records:
        raise TurncoatError("reports/records: no cell is finished here: there is nothing to pack")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w:gz") as packed:
        for path in files:
            packed.add(path)
    print(f"{target}: {records} cells, {len(files)} files, {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
