"""All benchmarks: attacks and training steps beside the peers', then what a user waits for. `make bench` calls it.

    python -m benchmarks [--peers PYTHON] [--model WEIGHTS --data FOLDER --epsilon E] [--quick]

Needs a finished study in this folder (`make repro`): its PGD network is attacked and trained on.
Writes reports/bench.json (all rounds, hardware, versions) and prints docs/performance.md's tables.
"""

import argparse
import json
import platform
import statistics
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.attacks import ENSEMBLES, Worker, compare, processor, table
from benchmarks.commands import commands

PEERS = ("torchattacks", "foolbox", "art")
METHODS = ("pgd", "standard", "trades", "mart", "advamd")
Results = dict[str, dict[str, list[dict[str, float]]]]


def attacks(given: argparse.Namespace) -> Results:
    """PGD, AutoAttack and adversarial training steps by every library; then the step of each method by ours."""
    pythons = {"turncoat": sys.executable} | (dict.fromkeys(PEERS, given.peers) if given.peers else {})
    workers = {name: Worker(name, python, given) for name, python in pythons.items()}
    rounds = 3 if given.quick else 9
    common = {"epsilon": given.epsilon, "step": 0.25, "steps": 10, "early_stop": False}
    jobs: dict[str, dict[str, Any]] = {
        "PGD-10": {"attack": "pgd"},
        "PGD-100": {"attack": "pgd", "steps": 100, "step": 0.05, "early_stop": True},
        "adversarial training step": {"train": "pgd", "precision": "float32", "attack": "pgd"},
    }
    results: Results = {}
    for title, job in jobs.items():
        results[title] = compare(list(workers.values()), common | job, rounds, warm=1)
        print(table(title, results[title], given.images) + "\n", flush=True)
    if not given.quick:
        able = [worker for name, worker in workers.items() if name in ENSEMBLES]
        results["AutoAttack standard"] = compare(able, common | {"attack": "autoattack"}, rounds=1, warm=0)
        print(table("AutoAttack standard, one run", results["AutoAttack standard"], given.images) + "\n", flush=True)
    for worker in list(workers.values())[1:]:
        worker.close()
    steps: dict[str, list[dict[str, float]]] = {}
    variants = [(name, "float32") for name in METHODS] + [("pgd", "bfloat16")]
    for number in range(rounds + 1):
        for name, precision in variants:
            job = common | {"train": name, "precision": precision, "seed": number}
            result = workers["turncoat"].run(job)
            if number:
                steps.setdefault(f"{name}, {precision}", []).append(result)
    workers["turncoat"].close()
    results["step of each method"] = steps
    print("| training step | of PGD training's time |\n|---|---|")
    for name, runs in steps.items():
        pairs = zip(runs, steps["pgd, float32"], strict=True)
        print(f"| {name} | {statistics.median(run['seconds'] / own['seconds'] for run, own in pairs):.2f} |")
    print(flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="the interpreter of the environment that holds torchattacks, foolbox and ART")
    parser.add_argument("--model", type=Path, default=Path("models/digits/pgd/0/best.safetensors"))
    parser.add_argument("--data", type=Path, default=Path("data/digits"))
    parser.add_argument("--epsilon", type=float, default=0.15)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no AutoAttack, no commands")
    parser.add_argument("--out", type=Path, default=Path("reports/bench.json"))
    given = parser.parse_args()
    if not given.model.is_file() or not given.data.is_dir():
        sys.exit(f"{given.model}, {given.data}: not there; run `make repro` first, or name others")
    found: dict[str, Any] = {
        "when": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "dvc", "mlflow")},
        "settings": {key: str(value) for key, value in vars(given).items()},
    }
    print(f"{found['when']}, {found['processor']}, {given.threads} thread(s), {given.model}, linf {given.epsilon:g}\n")
    found["attacks"] = attacks(given)
    if not given.quick:
        found["commands"] = commands()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{given.out} holds every round")


if __name__ == "__main__":
    main()
