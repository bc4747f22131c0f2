"""PGD and AutoAttack beside torchattacks, foolbox and ART: same network, images and budget, interleaved runs.

    python -m benchmarks.attacks --model models/digits/pgd/0/best.safetensors --data data/digits --epsilon 0.15 \
        --peer torchattacks=PYTHON --peer foolbox=PYTHON --peer art=PYTHON

PYTHON is the interpreter of an environment that holds the peer and sees this one's packages (docs/benchmarks.md says
how to make one). A round runs every library once, in turning order; ratios are medians over the rounds of peer / ours,
so that a busy machine slows both. Robust accuracies stand beside the ratio: speed at another strength says nothing.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import UTC, datetime
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
    """Markdown: one row a library, ours first."""
    ours = results["turncoat"]
    lines = [
        f"| {title} | images/s | ours is faster by | robust of {images} | forward | backward |",
        "|---|---|---|---|---|---|",
    ]
    for library, runs in results.items():
        ratio = statistics.median(run["seconds"] / own["seconds"] for run, own in zip(runs, ours, strict=True))
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        lines.append(
            f"| {library} | {images / middle['seconds']:,.1f} | {ratio:.2f} | {middle['robust']:.0f} "
            f"| {middle['forward']:,.1f} | {middle['backward']:,.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a weights file (safetensors)")
    parser.add_argument("--data", type=Path, required=True, help="the folder of its data set")
    parser.add_argument("--epsilon", type=float, required=True)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="torchattacks, foolbox, art")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("pgd", "autoattack"))
    given = parser.parse_args()
    pythons = {"turncoat": sys.executable, **dict(peer.split("=", 1) for peer in given.peer)}
    jobs: dict[str, dict[str, Any]] = {
        "PGD-10": {"attack": "pgd", "steps": 10, "step": 0.25, "early_stop": False},
        "PGD-100": {"attack": "pgd", "steps": 100, "step": 0.05, "early_stop": True},
        "AutoAttack standard": {"attack": "autoattack"},
    }
    print(f"{datetime.now(UTC):%Y-%m-%d}, {_processor()}, {given.threads} thread(s), load {os.getloadavg()[0]:.1f},")
    print(f"{given.model}, linf {given.epsilon:g}, medians of {given.rounds} interleaved rounds (AutoAttack: one)\n")
    workers = {name: Worker(name, python, given) for name, python in pythons.items()}
    for title, job in jobs.items():
        whole = job["attack"] == "autoattack"
        if given.only in (None, job["attack"]):
            able = [worker for name, worker in workers.items() if not whole or name in ENSEMBLES]
            rounds, warm = (1, 0) if whole else (given.rounds, 1)
            results = compare(able, job | {"epsilon": given.epsilon}, rounds, warm)
            print(table(title, results, given.images) + "\n", flush=True)
    for worker in workers.values():
        worker.close()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
