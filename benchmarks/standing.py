"""What else brings down the images that stand in a cell's record: attacks of one's own choice, one after the other.

    python -m benchmarks.standing --arm quantised-2 [--seed 0] [--dataset digits] [--attack '{attack: square}']

Runs in a folder with a finished study. Each attack meets all images that stand, within the record's threat, and is told
by how many it brings down, how many fell to it or to one before it, and its core-seconds. An attack is an entry of a
suite (docs/suites.md); without --attack those of `ATTACKS`, gradients and random search, are run.
"""

import argparse
import time

import numpy as np
import yaml

from benchmarks import cell
from turncoat.evaluation import evaluate

ATTACKS = (
    "{attack: apgd-t, steps: 100}",
    "{attack: apgd, steps: 100, restarts: 5}",
    "{attack: square, queries: 1000}",
    "{attack: square, queries: 5000}",
    "{attack: square, queries: 1000, restarts: 6}",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--arm", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attack-seed", type=int, default=1000, help="other draws than the record's (%(default)s)")
    parser.add_argument("--attack", action="append", help="an entry of a suite, as YAML; may be repeated")
    given = parser.parse_args()
    met = cell.load(given.dataset, given.arm, given.seed)
    print(f"{int(met.worst.sum())} of {len(met.worst)} images stand\n")
    images, labels = met.images[met.worst], met.labels[met.worst]
    print("| attack | brings down | with those before it | core-seconds |\n|---|--:|--:|--:|")
    left = np.ones(len(labels), bool)
    for text in given.attack or ATTACKS:
        began = time.process_time()
        found = evaluate(
            met.model, images, labels, met.threat, {"this": yaml.safe_load(text)}, checks=False, seed=given.attack_seed
        )
        left &= found.worst
        fallen = (int((~worst).sum()) for worst in (found.worst, left))
        print(f"| `{text}` | {' | '.join(map(str, fallen))} | {time.process_time() - began:.0f} |", flush=True)


if __name__ == "__main__":
    main()
