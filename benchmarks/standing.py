"""What else brings down the images that stand in a cell's record: attacks of one's own choice, one after the other.

    python -m benchmarks.standing --arm quantised-2 [--seed 0] [--dataset digits] [--attack '{attack: square}']

Runs in a folder with a finished study. Each attack meets all images that stand, within the record's threat, and is told
by how many it brings down, how many fell to it or to one before it, and its core-seconds. An attack is an entry of a
suite (docs/suites.md); without --attack those of `ATTACKS`, gradients and random search, are run.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import yaml

from turncoat import data, models
from turncoat.attacks import Threat
from turncoat.data.batches import resident
from turncoat.evaluation import evaluate
from turncoat.files import read_json

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
    parser.add_argument("--attack", action="append", help="an entry of a suite, as YAML; may be repeated")
    given = parser.parse_args()
    cell = Path(given.dataset, given.arm, str(given.seed))
    folder = Path("reports/records") / cell
    record = read_json(folder / "record.json")
    with np.load(folder / record["examples"]["file"]) as examples:
        standing = np.flatnonzero(examples["worst"])
    model = models.load(Path("models") / cell / "best.safetensors", "cpu")
    test = data.load(Path("data") / given.dataset).test
    split = resident(test.images[standing], test.labels[standing], "cpu")
    print(f"{cell}: {len(standing)} of {len(examples['worst'])} images stand\n")
    print("| attack | brings down | with those before it | core-seconds |\n|---|--:|--:|--:|")
    left = np.ones(len(standing), bool)
    for text in given.attack or ATTACKS:
        began = time.process_time()
        met = evaluate(
            model,
            split.floats(),
            split.labels,
            Threat(**record["threat"]),
            {"this": yaml.safe_load(text)},
            checks=False,
        )
        left &= met.worst
        fallen = (int((~worst).sum()) for worst in (met.worst, left))
        print(f"| `{text}` | {' | '.join(map(str, fallen))} | {time.process_time() - began:.0f} |", flush=True)


if __name__ == "__main__":
    main()
