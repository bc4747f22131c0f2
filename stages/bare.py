"""Run the study's stages on a machine without DVC and MLflow, in slices: a rented GPU, say. Not a stage itself.

    python -m stages.bare --minutes 8

Runs what is not done yet, several cells at a time, and stops after the given minutes; run it again and it goes on, in
the middle of a training from its last checkpoint. Needs torch, torchvision, pydantic, safetensors, scipy, scikit-learn,
tqdm and PyYAML. Tracking is off. What is done is done for this params.yaml and this code: after an edit it starts anew.

Then bring data/, models/ and reports/ into a checkout with DVC, and let it take them in and write the report:

    dvc repro inputs && dvc commit --force download baseline pretrain perturb finetune evaluate && dvc repro

  TURNCOAT_WORKERS   cells at a time, as for `make repro`
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from stages.common import Work, phases, run, workers
from turncoat.errors import TurncoatError
from turncoat.files import checksum
from turncoat.settings import load

MARKS, LOGS = Path(".scratch/bare"), Path(".scratch/logs")
UNFINISHED = 3  # exit status: there is more to do


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True, help="stop after so many; at least 0.1")
    minutes = parser.parse_args().minutes
    if not minutes >= 0.1:
        raise TurncoatError(f"--minutes {minutes}: give a number from 0.1")
    deadline = time.monotonic() + 60 * minutes
    study = load().study
    digest = checksum("params.yaml", "stages", "turncoat")  # what the marks of finished stages hold for
    MARKS.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    for phase in phases(study):
        todo = [chain for chain in phase if not all(_done(work, digest) for work in chain)]
        left = 0
        with ThreadPoolExecutor(workers()) as pool:
            jobs = {pool.submit(_chain, chain, digest, deadline): chain for chain in todo}
            for job in as_completed(jobs):
                finished, said = job.result()
                print(f"{jobs[job][-1]}: {said}", flush=True)
                left += 0 if finished else 1
        if left:
            print(f"{left} of {len(phase)} left, and what follows them: run it again")
            sys.exit(UNFINISHED)
    print("all cells are done")


def _done(work: Work, digest: str) -> bool:
    mark = MARKS / str(work)
    return mark.is_file() and mark.read_text() == digest


def _chain(chain: list[Work], digest: str, deadline: float) -> tuple[bool, str]:
    """Run a chain's stages that are not done; whether all are now, and what to say of it.

    Raises:
        TurncoatError: a stage failed; its log is named.
    """
    said = ""
    for work in chain:
        if _done(work, digest):
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
        (MARKS / str(work)).write_text(digest)
        said = lines[-1]
    return True, said


if __name__ == "__main__":
    run(main)
