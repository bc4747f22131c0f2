"""Run the study that params.yaml describes: `dvc repro`, with independent cells side by side.

Not a stage itself. One single-threaded process a core beats one process with a thread a core on small networks; each
cell is a `dvc repro` of its own, so a last plain `dvc repro` finds only the report left to do, and the measured
values are those of running one after another.

  TURNCOAT_WORKERS   cells at a time (default: the number of cores, 2 where there is a GPU); 1: one after another
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from stages.common import parse, phases, run, workers
from turncoat.errors import TurncoatError
from turncoat.settings import load

LOGS = Path(".scratch/logs")


def main() -> None:
    parse(__doc__)
    study, at_once = load().study, workers()
    plan = [[["inputs"]]]
    plan += [[[str(work) for work in chain] for chain in phase] for phase in phases(study)]
    changed: set[str] = set()
    for phase in plan:
        if not all(changed.intersection(chain) for chain in phase):  # else a fresh study: nothing to ask DVC
            changed |= outdated()
        side_by_side([chain for chain in phase if changed.intersection(chain)], at_once)
    sys.exit(subprocess.run(["dvc", "repro"]).returncode)


def side_by_side(chains: Sequence[Sequence[str]], at_once: int) -> None:
    """Run chains of stages, each chain in order, `at_once` chains at a time.

    Raises:
        TurncoatError: stages failed; the others were run to their end, and the failed ones' logs are named.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    failed = []
    with ThreadPoolExecutor(at_once) as pool:
        jobs = {pool.submit(_chain, chain): chain for chain in chains}
        try:
            for number, job in enumerate(as_completed(jobs), 1):
                name = jobs[job][-1]
                code, seconds, said = job.result()
                print(f"[{number}/{len(chains)}] {name}: {seconds:.0f} s  {said}", flush=True)
                if code:
                    failed.append(name)
        except BaseException:  # Ctrl-C: the cells that wait do not start
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        logs = ", ".join(str(LOGS / f"{name}.log") for name in failed)
        raise TurncoatError(f"{len(failed)} of {len(chains)} failed: {', '.join(failed)}; see {logs}")


def outdated() -> set[str]:
    """Names of the stages that `dvc repro` would run now (those behind them in the pipeline not included)."""
    status = subprocess.run(["dvc", "status", "--json"], capture_output=True, text=True)
    if status.returncode:
        raise TurncoatError(status.stderr.strip() or "dvc status failed")
    return set(json.loads(status.stdout))


def _chain(stages: Sequence[str]) -> tuple[int, float, str]:
    """One `dvc repro` of the stages themselves; exit code, seconds, the last line that a stage printed."""
    started = time.monotonic()
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    done = subprocess.run(
        ["dvc", "--wait-for-lock", "repro", "--single-item", *stages],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    (LOGS / f"{stages[-1]}.log").write_text(done.stdout)
    # a stage's own lines; DVC says "Running stage", "Updating lock file" and the like around them
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        return done.returncode, time.monotonic() - started, "\n    ".join(["FAILED", *lines[-3:]])
    said = [line for line in lines if ": " in line and not line.startswith((" ", ">"))]
    return 0, time.monotonic() - started, said[-1] if said else ""


if __name__ == "__main__":
    run(main)
