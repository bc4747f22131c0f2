"""The studies that run on the small cluster: digits, three arms and two seeds, of few images and epochs."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.study import ENVIRONMENT, shrink

ARMS, SEEDS = ("standard", "pgd", "mart"), (0, 1)
NEAR = {  # a checkpoint each epoch, which lasts long enough on any machine to be disturbed
    "time.monotonic() - saved > CHECKPOINT_SECONDS": "True",
    "    method.model.train()\n": (
        "    method.model.train()\n    time.sleep(float(__import__('os').environ.get('PAUSE', 0.3)))\n"
    ),
}


def small(params: dict, arms=ARMS, seeds=SEEDS, epochs=6) -> None:
    """Three arms and two seeds; the attacks of the tiny suite, fewer images."""
    shrink(params)
    params["study"] |= {"arms": list(arms), "seeds": list(seeds)}
    digits = params["datasets"]["digits"]
    digits["data"] |= {"train": 60, "validation": 20, "test": 20}
    digits["finetuning"] |= {"epochs": epochs, "batch_size": 20}
    params["suites"]["tiny"] |= {"attacks": {"fgsm": {"attack": "fgsm"}}, "radii": [], "audit": 0}


def checkpoint_each_epoch(folder: Path) -> None:
    loop = folder / "turncoat/training/loop.py"
    text = loop.read_text()
    for before, after in NEAR.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    loop.write_text(text)


class Head:
    """`make repro` on the cluster, as a process of its own whose lines are read while it goes."""

    def __init__(self, folder: Path, slurm, options: str | None = None, **environment: str) -> None:
        if options is not None:
            (folder / "cluster.yaml").write_text(options)
        self.folder, self.file = folder, folder / f".head-{time.time_ns()}.txt"
        with open(self.file, "w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stages.repro"],
                cwd=folder,
                env=ENVIRONMENT | slurm.environment | {"TURNCOAT_CLUSTER": "slurm"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.file.read_text()

    def until(self, pattern: str, seconds: float = 240) -> re.Match:
        """Wait until it has said so."""
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.said)):
            assert self.process.poll() is None, f"ended without {pattern!r}:\n{self.said}"
            assert time.monotonic() < until, f"{pattern!r} was not said:\n{self.said}"
            time.sleep(0.2)
        return found

    def end(self, code: int = 0, seconds: float = 400) -> str:
        """Wait for its end; all it said."""
        try:
            assert self.process.wait(seconds) == code, self.said
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(self.said) from None
        return self.said

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.killpg(self.process.pid, number)
        self.process.wait(30)
