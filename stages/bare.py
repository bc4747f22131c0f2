"""Run the study's stages on a machine without DVC and MLflow, in slices: a rented GPU, say. Not a stage itself.

    python -m stages.bare --minutes 8

Runs what is not done yet, several cells at a time, and stops after the given minutes; run it again and it goes on, in
the middle of a training from its last checkpoint. Needs torch, torchvision, pydantic, safetensors, scipy, scikit-learn,
tqdm and PyYAML. Tracking is off. A stage is done for its part of params.yaml, its code, and those of the stages it
builds on: a new seed or arm adds its own cells, a comment nothing. Then there are two ways back.

Results alone, some megabytes without weights and images, into any checkout with the same params.yaml and claims; its
report holds every table, figure and verdict, while `dvc repro` there would compute everything anew:

    python -m stages.bare --pack results.tar.gz          there
    tar xzf results.tar.gz && python -m stages.report    here

Or all of data/, models/ and reports/, weights too, into a checkout where DVC takes them in as its own:

    dvc repro inputs && dvc commit --force download baseline pretrain perturb finetune evaluate analyse && dvc repro

  TURNCOAT_WORKERS   cells at a time, as for `make repro`
"""

import argparse
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from stages.common import Work, phases, run, workers
from stages.marks import Marks
from turncoat.errors import TurncoatError
from turncoat.settings import load

LOGS = Path(".scratch/logs")
UNFINISHED = 3  # exit status: there is more to do
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
    marks = Marks(settings)
    for phase in phases(settings.study):
        todo = [chain for chain in phase if not all(marks.done(work) for work in chain)]
        if left := side_by_side(todo, marks, deadline):
            print(f"{left} of {len(phase)} left, and what follows them: run it again")
            sys.exit(UNFINISHED)
    print("all cells are done")


def side_by_side(chains: Sequence[list[Work]], marks: Marks, deadline: float) -> int:
    """Run chains of stages, each in order, several at a time; how many the deadline left unfinished.

    Raises:
        TurncoatError: stages failed; the others were run to their end, and the failed ones' logs are named.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    left, failed = 0, []
    with ThreadPoolExecutor(workers()) as pool:
        jobs = {pool.submit(_chain, chain, marks, deadline): chain for chain in chains}
        try:
            for job in as_completed(jobs):
                try:
                    finished, said = job.result()
                except TurncoatError as error:
                    failed.append(str(error))
                    finished, said = True, "FAILED"
                print(f"{jobs[job][-1]}: {said}", flush=True)
                left += not finished
        except BaseException:  # Ctrl-C: the cells that wait do not start
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise TurncoatError("\n".join(failed))
    return left


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


def _chain(chain: list[Work], marks: Marks, deadline: float) -> tuple[bool, str]:
    """Run a chain's stages that are not done; whether all are now, and what to say of it.

    Raises:
        TurncoatError: a stage failed; its log is named.
    """
    said = ""
    for work in chain:
        if marks.done(work):
            continue
        left = deadline - time.monotonic()
        if left <= 0:
            return False, "waits for the next slice"
        log, environment = LOGS / f"{work}.log", {"OMP_NUM_THREADS": "1"} | os.environ | {"TURNCOAT_TRACKING": "off"}
        with open(log, "w") as file:
            try:
                code = subprocess.run(
                    work.command(), stdout=file, stderr=subprocess.STDOUT, env=environment, timeout=left
                ).returncode
            except subprocess.TimeoutExpired:
                return False, "cut off; it goes on from its last checkpoint"
        lines = log.read_text().strip().splitlines() or [""]
        if code:
            raise TurncoatError(f"{work} failed: {lines[-1]}; see {log}")
        marks.set(work)
        said = lines[-1]
    return True, said


if __name__ == "__main__":
    run(main)
