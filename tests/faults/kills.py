"""A study killed at random moments, over and over, ends as one that was left in peace: to the byte.

    python -m tests.faults.kills --kills 100 --minutes 15 [--arms standard pgd mart] [--seeds 0 1] [--seed 0]

Two studies of digits are run from the working tree's code, each in a folder of its own. One is left alone. The other is
run by `dvc repro`, whose whole process group is killed (SIGKILL) again and again: each kill is meant for a stage drawn
at random and falls a random time after that stage began, wherever the study then is. In the end `dvc repro` finishes,
and both reports/summary.json are compared. Exit status 0: the same bytes.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stages.repro import torn
from tests.faults.study import ENVIRONMENT, lay
from turncoat.settings import load

LONGEST = 5.0  # seconds after the start of its stage that a kill may wait: a stage of digits takes about as long


@dataclass
class Told:
    """What was done to a study, and what came of it."""

    kills: int = 0
    repros: int = 0
    struck: Counter[str] = field(default_factory=Counter)  # stage -> kills that met it
    resumed: int = 0
    torn: int = 0  # kills that met DVC writing one of its own files
    summary: bytes = b""


def stages(folder: Path) -> int:
    """How many stages the study of a folder has."""
    listed = subprocess.run(["dvc", "stage", "list"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    return len(listed.stdout.splitlines())


def disturb(
    folder: Path,
    change: Callable[[dict], None],
    *,
    kills: int,
    seconds: float,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
) -> Told:
    """Run a study of the working tree's code in `folder`, killing it `kills` times within `seconds`.

    Raises:
        RuntimeError: `dvc repro` failed though nobody killed it.
    """
    lay(folder, change)
    draw, told, began = random.Random(seed), Told(), time.monotonic()
    count = stages(folder)
    planned = Counter(draw.randrange(count) for _ in range(kills))  # stage by place in the order of running
    seen: dict[str, int] = {}
    while True:
        told.repros += 1
        process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        lines, struck, at, timer = [], threading.Event(), "before any stage", None

        def strike(process: subprocess.Popen[str] = process, struck: threading.Event = struck) -> None:
            if process.poll() is None:
                struck.set()
                os.killpg(process.pid, signal.SIGKILL)

        for line in process.stdout:
            lines.append(line)
            told.resumed += "resuming after epoch" in line or "going on after" in line
            if line.startswith("Running stage"):
                at = line.split("'")[1]
                place = seen.setdefault(at, len(seen))
                due = [earlier for earlier in range(place + 1) if planned[earlier]]
                if due and timer is None and time.monotonic() - began < seconds:
                    planned[due[-1]] -= 1
                    timer = threading.Timer(draw.uniform(0, LONGEST), strike)
                    timer.start()
        code = process.wait()
        if timer:
            timer.cancel()
            timer.join()
        if struck.is_set() and code:
            told.kills += 1
            told.struck[at] += 1
            say(f"{time.monotonic() - began:6.1f} s: kill {told.kills} in {at}")
        elif code and told.torn < told.kills and (file := torn("".join(lines))):
            told.torn += 1
            (folder / file).unlink()  # the remedy of docs/robustness.md, which `make repro` takes by itself
        elif code:
            raise RuntimeError(f"`dvc repro` failed of itself after {told.kills} kills:\n{''.join(lines[-30:])}")
        else:
            told.summary = (folder / "reports" / "summary.json").read_bytes()
            return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=15, help="no kill is planned after six sevenths of these")
    parser.add_argument("--arms", nargs="+", default=["standard", "pgd", "mart"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--seed", type=int, default=0, help="of the moments; those hang on the machine's speed too")
    given = parser.parse_args()

    def change(params: dict) -> None:
        params["study"] |= {"datasets": ["digits"], "arms": given.arms, "seeds": given.seeds, "pretrained": []}

    with tempfile.TemporaryDirectory(prefix="kills-") as root:
        began = time.monotonic()
        peaceful = lay(Path(root) / "peaceful", change)
        load(peaceful / "params.yaml")
        alone = subprocess.Popen(
            [sys.executable, "-m", "stages.repro"],
            cwd=peaceful,
            env=ENVIRONMENT | {"TURNCOAT_WORKERS": "1"},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            say = lambda text: print(text, flush=True)  # noqa: E731
            budget = 60 * given.minutes * 6 / 7
            told = disturb(Path(root) / "killed", change, kills=given.kills, seconds=budget, seed=given.seed, say=say)
            code = alone.wait(timeout=max(60.0, 60 * given.minutes - (time.monotonic() - began)))
        finally:
            if alone.poll() is None:
                os.killpg(alone.pid, signal.SIGKILL)
        if code:
            print("the undisturbed study failed")
            return 1
        same = told.summary == (peaceful / "reports" / "summary.json").read_bytes()
        print(f"{told.kills} kills in {len(told.struck)} stages, {told.torn} of them in a write of DVC's own files")
        print(f"{told.repros} repros, {told.resumed} resumed work")
        print(f"{time.monotonic() - began:.0f} s; summary.json {'is the same' if same else 'DIFFERS'}")
        return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
