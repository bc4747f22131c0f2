"""Libraries side by side, each in its own process: same network, images and budget, interleaved runs.

A round runs every library once, in turning order; ratios are medians over the rounds of peer / ours, so that a busy
machine slows both. Robust accuracies stand beside the ratio: speed at another strength says nothing.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

Result = dict[str, float]
ENSEMBLES = ("turncoat", "torchattacks")  # foolbox has no AutoAttack, ART's is made of other attacks


class Worker:
    """A library in its own process."""

    def __init__(self, library: str, python: str, given: argparse.Namespace) -> None:
        command = [python, "-m", "benchmarks.worker", library, "--model", str(given.model), "--data", str(given.data)]
        command += ["--images", str(given.images), "--threads", str(given.threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
        self.library = library
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, job: dict[str, Any]) -> Result:
        """The result of one job; ends the benchmark where the library fails."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.library}: ended without a result; its own message stands above")
        result: Result = json.loads(line)
        return result

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def compare(workers: list[Worker], job: dict[str, Any], rounds: int, warm: int) -> dict[str, list[Result]]:
    """`rounds` results of each library, after `warm` runs that do not count."""
    results: dict[str, list[Result]] = {worker.library: [] for worker in workers}
    for number in range(warm + rounds):
        turn = number % len(workers)
        for worker in workers[turn:] + workers[:turn]:
            result = worker.run(job | {"seed": number})
            if number >= warm:
                results[worker.library].append(result)
    return results


def table(title: str, results: dict[str, list[Result]], images: int) -> str:
    """Markdown: one row a library, ours first; how many images stood, and passes, where that was measured."""
    ours = results["turncoat"]
    judged = "robust" in ours[0]
    more = f" robust of {images} | forward | backward |" if judged else ""
    lines = [f"| {title} | images/s | ours is faster by |{more}", "|---" * (6 if judged else 3) + "|"]
    for library, runs in results.items():
        ratio = ratios(runs, ours, "seconds")
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        row = f"| {library} | {images / middle['seconds']:,.1f} | {ratio:.2f} |"
        if judged:
            row += f" {middle['robust']:.0f} | {middle['forward']:,.1f} | {middle['backward']:,.1f} |"
        lines.append(row)
    return "\n".join(lines)


def ratios(runs: list[Result], others: list[Result], key: str, by: str | None = None) -> float:
    """The median over the rounds of `key` by what `others` have in that round under `by`, or under the same key."""
    return statistics.median(run[key] / other[by or key] for run, other in zip(runs, others, strict=True))


def processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
