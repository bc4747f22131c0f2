"""The authors' own AutoAttack on cells of the study: how far does it lower what their records say? `make official`.

    .venv/peers/bin/python -m benchmarks.official [--dataset digits] [--arm mart] [--seed 0] [--images 200] [--out STEM]

Runs in the peers' environment (`make .venv/peers/installed`), in a folder with a finished study. Without --arm and
--seed every cell of the study is attacked. A cell is its record's best weights; a verdict is a fresh float32 pass of
the network over what the attack returned, brought back into the threat. With --out the table is kept, as STEM.json
and STEM.md, and goes on where it was cut. A random network meets the version for random networks, and is scored in the
draw that its record counts.
"""

import argparse
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import cell
from turncoat.attacks import Threat
from turncoat.errors import TurncoatError
from turncoat.evaluation.journal import Journal
from turncoat.evaluation.runner import Runner
from turncoat.files import read_json, write_atomic, write_json
from turncoat.settings import load

PACKAGE = "pyautoattack"  # Croce and Hein's code as a package
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
BATCH = 500


@dataclass(frozen=True)
class Row:
    """One cell: images that stand, of `n`.

    `worst`: in the record's worst case; `official`: under the official AutoAttack; `both`: under both, image by image
    (of a random network the smaller of the two: an image has no verdict there but by a draw).
    """

    dataset: str
    arm: str
    seed: int
    version: str
    n: int
    worst: int
    official: int
    both: int
    weights: str  # SHA-256 of them

    @property
    def above(self) -> float:
        """Points by which the record's worst case lies above the official AutoAttack."""
        return 100 * (self.worst - self.official) / self.n

    @property
    def lowered(self) -> float:
        """Points that the official AutoAttack takes off the record's worst case."""
        return 100 * (self.worst - self.both) / self.n

    @property
    def line(self) -> str:
        """The row in Markdown."""
        shares = " | ".join(f"{100 * count / self.n:.1f}" for count in (self.worst, self.official))
        name = f"{self.dataset}/{self.arm}/{self.seed}"
        return f"| {name} | {self.version} | {self.n} | {shares} | {self.above:+.1f} | {self.lowered:.1f} |"


HEAD = (
    "| cell | version | images | record's worst case, % | official AutoAttack, % | record above it | lowered by it |"
    "\n|---|---|--:|--:|--:|--:|--:|"
)


def official(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int, kind: str) -> Tensor:
    """What the official AutoAttack makes of images (n, c, h, w), inside the threat."""
    from pyautoattack import AutoAttack

    model = model.eval().requires_grad_(False)
    attack = AutoAttack(
        model, norm=NORMS[threat.norm], eps=threat.epsilon, version=kind, seed=seed, device=images.device
    )
    with redirect_stdout(sys.stderr):
        made, _ = attack.run_standard_evaluation(images, labels, batch_size=BATCH)
    return threat.project(made.detach(), images)


def attacked(dataset: str, arm: str, seed: int, folders: argparse.Namespace) -> Row:
    """The row of one cell.

    Raises:
        FileNotFoundError, TurncoatError: the cell has no record, or no weights, here.
    """
    places = {name: getattr(folders, name) for name in cell.FOLDERS}
    met = cell.load(dataset, arm, seed, folders.images, places)
    record, worst, labels = met.record, met.worst, met.labels
    random = any(flag["name"] == "random-forward" for flag in record["flags"])
    kind = "rand" if random else "standard"
    made = official(met.model, met.images, labels, met.threat, seed, kind)
    judge = Runner(met.model, met.images, labels, seed=seed, batch_size=BATCH, journal=Journal())
    right = (judge.logits(made, np.arange(len(worst))).argmax(1) == labels).cpu().numpy()
    both = min(worst.sum(), right.sum()) if random else (worst & right).sum()
    return Row(
        dataset, arm, seed, kind, len(worst), int(worst.sum()), int(right.sum()), int(both), record["weights"]["best"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", action="append", help="of the study (default: all; may be repeated, as the next)")
    parser.add_argument("--arm", action="append", help="of the study (default: all)")
    parser.add_argument("--seed", action="append", type=int, help="of the study (default: all)")
    parser.add_argument("--images", type=int, help="the first so many of the record's images (default: all)")
    parser.add_argument("--out", type=Path, help="keep the table as this path with .json and .md")
    for name, place in cell.FOLDERS.items():
        parser.add_argument(f"--{name}", type=Path, default=place, help="a folder (default: %(default)s)")
    given = parser.parse_args()
    study = load().study
    cells = [
        (dataset, arm, seed)
        for dataset in given.dataset or study.datasets
        for arm in given.arm or study.arms
        for seed in given.seed or study.seeds
    ]
    print(HEAD, flush=True)
    rows: list[Row] = []
    missing: list[str] = []
    before = kept(given.out, given.records, given.images) if given.out else {}
    for number, one in enumerate(cells, 1):
        waiting = ["/".join(map(str, other)) for other in cells[number:]]
        try:
            rows.append(before.get(one) or attacked(*one, given))
            print(rows[-1].line, flush=True)
            if given.out:
                keep(given.out, rows, [*missing, *waiting])
        except (FileNotFoundError, TurncoatError) as error:
            missing.append("/".join(map(str, one)))
            print(f"| {missing[-1]} | not run: {error} |", flush=True)
    if given.out and rows:
        keep(given.out, rows, missing)
    sys.exit(f"not run: {', '.join(missing)}" if missing else 0)


def kept(stem: Path, records: Path, images: int | None) -> dict[tuple[str, str, int], Row]:
    """Rows of a table that was cut or is older, of weights and worst cases that are still the same."""
    path = stem.with_suffix(".json")
    rows = [Row(**row) for row in read_json(path)["rows"]] if path.exists() else []
    return {(row.dataset, row.arm, row.seed): row for row in rows if _still(row, records, images)}


def _still(row: Row, records: Path, images: int | None) -> bool:
    folder = records / row.dataset / row.arm / str(row.seed)
    if not (folder / "record.json").exists():
        return False
    record = read_json(folder / "record.json")
    with np.load(folder / record["examples"]["file"]) as examples:
        worst = examples["worst"][:images]
    return (record["weights"]["best"], len(worst), worst.sum()) == (row.weights, row.n, row.worst)


def keep(stem: Path, rows: list[Row], missing: list[str]) -> None:
    """Write the rows as stem.json and stem.md."""
    about = {"package": f"{PACKAGE} {version(PACKAGE)}", "torch": torch.__version__, "not_run": missing}
    write_json(stem.with_suffix(".json"), about | {"rows": [asdict(row) for row in rows]})
    most, mean = max(row.lowered for row in rows), sum(row.above for row in rows) / len(rows)
    text = [
        "# The official AutoAttack on the study's cells",
        f"Made by `python -m benchmarks.official`, with {about['package']}. It lowers a record by {most:.1f} points at "
        f"most. On average the records lie {abs(mean):.1f} points {'above' if mean > 0 else 'below'} what it leaves."
        + (f" Not run: {', '.join(missing)}." if missing else ""),
        "\n".join([HEAD, *(row.line for row in rows)]),
    ]
    write_atomic(stem.with_suffix(".md"), ("\n\n".join(text) + "\n").encode())


if __name__ == "__main__":
    main()
