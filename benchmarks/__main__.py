"""All benchmarks: attacks and training steps beside the peers', then what a user waits for. `make bench` calls it.

    python -m benchmarks [--peers PYTHON] [--model WEIGHTS --data FOLDER --epsilon E] [--quick]

Needs a finished study in this folder (`make repro`, or `python -m stages.bare` where there is no DVC): its PGD network
is attacked and trained on. Writes reports/bench.json (all rounds, hardware, versions) and prints docs/performance.md's
tables. Without --peers ours alone is timed.

Three networks, each from a study of `study.datasets: [digits, mnist, cifar10]` with the arm `pgd`:

    python -m benchmarks --peers PYTHON                                                            8x8, small_cnn
    python -m benchmarks --peers PYTHON --model models/mnist/pgd/0/best.safetensors --data data/mnist \\
        --epsilon 0.3 --images 100 --out reports/bench-mnist.json                                 28x28, small_cnn
    python -m benchmarks --peers PYTHON --model models/cifar10/pgd/0/best.safetensors --data data/cifar10 \\
        --epsilon 0.0313725 --images 16 --quick --compiled --out reports/bench-cifar10.json      32x32, ResNet-18

All images given are one batch: on a CPU few will do for a ResNet-18; on a GPU take 128, the batch of its training.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.attacks import ENSEMBLES, Result, Worker, compare, processor, ratios, table
from benchmarks.commands import commands
from turncoat.files import read_json
from turncoat.settings import load

PEERS = ("torchattacks", "foolbox", "art")
STUDYS = "adversarial training step, ours as the study trains, peers in float32"
Results = dict[str, dict[str, list[Result]]]


def attacks(given: argparse.Namespace, keep: Callable[[dict[str, Any], Results], None]) -> None:
    """PGD, AutoAttack and adversarial training steps by every library; then what ours alone does.

    Args:
        keep: gets what it ran on, and the results so far, after each part.
    """
    pythons = {"turncoat": sys.executable} | (dict.fromkeys(given.library or PEERS, given.peers) if given.peers else {})
    workers = {name: Worker(name, python, given) for name, python in pythons.items()}
    rounds = 3 if given.quick else 9
    common = {"epsilon": given.epsilon, "relative_step": 0.25, "steps": 10, "early_stop": False}
    jobs: dict[str, dict[str, Any]] = {
        "PGD-10": {"attack": "pgd"},
        "PGD-100": {"attack": "pgd", "steps": 100, "relative_step": 0.05, "early_stop": True},
        "adversarial training step": {"train": "pgd", "precision": "float32", "attack": "pgd"},
        STUDYS: {"train": "pgd", "precision": "auto", "compile": "auto", "attack": "pgd"},
    }
    results: Results = {}
    about = workers["turncoat"].run({"about": True})
    print(f"on {about['device']}\n", flush=True)
    for key, job in jobs.items():
        results[key] = compare(list(workers.values()), common | job, rounds, warm=1)
        title = f"{key} ({_how(results[key]['turncoat'][0])})" if key == STUDYS else key
        print(table(title, results[key], given.images) + "\n", flush=True)
        keep(about, results)
    if not given.quick:
        able = [worker for name, worker in workers.items() if name in ENSEMBLES]
        results["AutoAttack standard"] = compare(able, common | {"attack": "autoattack"}, rounds=1, warm=0)
        print(table("AutoAttack standard, one run", results["AutoAttack standard"], given.images) + "\n", flush=True)
    for worker in list(workers.values())[1:]:
        worker.close()
    ours = workers["turncoat"]
    results["training step of each arm"] = steps(ours, common, given, rounds)
    keep(about, results)
    results["evaluation of a cell"] = evaluations(ours, common, 1 if given.quick else 3)
    keep(about, results)
    ours.close()


def steps(worker: Worker, common: dict[str, Any], given: argparse.Namespace, rounds: int) -> dict[str, list[Result]]:
    """The training step of each arm of the study, interleaved, and that of `pgd` in other precision and compiled."""
    wanted = {arm: {"train": arm, "precision": "float32"} for arm in dict.fromkeys(["pgd", *load().study.arms])}
    wanted["pgd, bfloat16"] = {"train": "pgd", "precision": "bfloat16"}
    if given.compiled or not given.quick:
        wanted["pgd, compiled"] = {"train": "pgd", "precision": "float32", "compile": True}
        wanted["pgd, bfloat16, compiled"] = {"train": "pgd", "precision": "bfloat16", "compile": True}
    found: dict[str, list[Result]] = {name: [] for name in wanted}
    for number in range(rounds):
        for name, job in wanted.items():
            found[name].append(worker.run(common | job | {"seed": number}))
    size = read_json(given.data / "dataset.json")["counts"]["train"]["images"]
    print(
        "| training step | of PGD training's time, an image | of a matrix product's speed | an epoch, s | memory, GiB |"
    )
    print("|---|---|---|---|---|")
    for name, runs in found.items():
        each = [run | {"each": run["seconds"] / run["images"]} for run in runs]
        reference = [run | {"each": run["seconds"] / run["images"]} for run in found["pgd"]]
        middle = {key: statistics.median(run[key] for run in each) for key in each[0]}
        cells = [
            f"{ratios(each, reference, 'each'):.2f}",
            f"{middle['utilisation']:.1%}",
            f"{size * middle['each']:.1f}",
        ]
        cells.append(f"{middle['bytes'] / 2**30:.2f}" if "bytes" in middle else "")
        print(f"| {name} | {' | '.join(cells)} |")
    print(flush=True)
    return found


def evaluations(worker: Worker, common: dict[str, Any], rounds: int) -> dict[str, list[Result]]:
    """The evaluation of the network under the study's suite, and what its passes alone take."""
    suite = load().study.suite
    runs = [worker.run(common | {"evaluate": suite, "seed": number}) for number in range(rounds)]
    middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    heads = ("evaluation of a cell", "seconds", "images/s", "forward", "backward", "of its passes' time")
    cells = [f"{middle['seconds']:.2f}", f"{middle['images'] / middle['seconds']:,.1f}"]
    cells += [f"{middle[way]:,.0f}" for way in ("forward", "backward")] + [
        f"{ratios(runs, runs, 'seconds', 'least'):.2f}"
    ]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n| suite {suite} | {' | '.join(cells)} |\n", flush=True)
    return {suite: runs}


def _how(run: Result) -> str:
    """How a step of ours was computed, in words."""
    return f"{'float32' if run['bits'] == 32 else 'bfloat16'}, {'compiled' if run['compiled'] else 'not compiled'}"


def _versions(*names: str) -> dict[str, str]:
    """Versions of those that are installed."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="the interpreter of the environment that holds torchattacks, foolbox and ART")
    parser.add_argument("--library", action="append", choices=PEERS, help="of the peers these alone (default: all)")
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("models/digits/pgd/0/best.safetensors"),
        help="weights (default: %(default)s)",
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data/digits"), help="a folder of data/ (default: %(default)s)"
    )
    parser.add_argument(
        "--epsilon", type=float, default=0.15, help="linf radius, pixels in [0, 1] (default: %(default)s)"
    )
    parser.add_argument("--images", type=int, default=200, help="test images, one batch (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each library (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no AutoAttack, no commands")
    parser.add_argument("--compiled", action="store_true", help="with --quick: time compiled steps too; minutes")
    parser.add_argument("--out", type=Path, default=Path("reports/bench.json"))
    given = parser.parse_args()
    if not given.model.is_file() or not given.data.is_dir():
        sys.exit(f"{given.model}, {given.data}: not there; run `make repro` first, or name others")
    found: dict[str, Any] = {
        "when": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": processor(),
        "python": platform.python_version(),
        "versions": _versions("torch", "torchvision", "dvc", "mlflow"),
        "settings": {key: str(value) for key, value in vars(given).items()},
    }
    print(f"{found['when']}, {found['processor']}, {given.threads} thread(s), {given.model}, linf {given.epsilon:g}\n")
    given.out.parent.mkdir(parents=True, exist_ok=True)

    def keep(about: dict[str, Any], results: Results) -> None:
        found.update({"on": about, "attacks": results})
        given.out.write_text(json.dumps(found, indent=1) + "\n")

    attacks(given, keep)
    if not given.quick:
        found["commands"] = commands()
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{given.out} holds every round")


if __name__ == "__main__":
    main()
