"""Two arms beside each other under every measure that both have: of one study, or of two (`stages.compare`)."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from turncoat.errors import TurncoatError, there_are
from turncoat.files import read_json
from turncoat.reporting.cell import Cell
from turncoat.reporting.contrast import contrast
from turncoat.reporting.measures import BLOCKED, accuracy
from turncoat.reporting.record import Record
from turncoat.reporting.study import Study
from turncoat.settings import Settings

FILES = ("record.json", "examples.npz")
HEADER = ["measure", "first", "second", "difference", "from", "to", "p", "images", "seeds"]

DENSE = ("segmentation", "detection")


@dataclass(frozen=True)
class Side:
    """One of the two: an arm whose records lie at `root`/reports/records/. `label` is what it is called, and unique."""

    label: str
    arm: str
    root: Path


def gathered(sides: tuple[Side, Side], settings: Settings, folder: Path) -> Study:
    """A study of the two sides alone, each an arm of its label's name, with their files copied below `folder`.

    Raises:
        TurncoatError: a side has no record there, or one that cannot be read.
    """
    records: dict[Cell, Record] = {}
    for side in sides:
        found = sorted(side.root.glob(f"reports/records/*/{side.arm}/*/record.json"))
        if not found:
            there = sorted({path.parents[1].name for path in side.root.glob("reports/records/*/*/*/record.json")})
            raise TurncoatError(f"{side.label}: no record of {side.arm} in {side.root}; {there_are(side.arm, there)}")
        for path in found:
            dense = path.parts[-4] in settings.study.dense.datasets
            cell = Cell(path.parts[-4], side.label, int(path.parts[-2]), dense)
            target = folder / "reports" / "records" / cell.dataset / cell.arm / str(cell.seed)
            target.mkdir(parents=True)
            for name in FILES:
                if path.with_name(name).exists():
                    shutil.copyfile(path.with_name(name), target / name)
            try:
                records[cell] = Record.model_validate(read_json(path))
            except ValidationError as error:
                raise TurncoatError(f"{path}: not a record of this version; run `{cell.command}`") from error
    labels, names = [side.label for side in sides], list(dict.fromkeys(cell.dataset for cell in records))
    apart = [name for name in names if records[next(cell for cell in records if cell.dataset == name)].task in DENSE]
    plan = {
        "datasets": [name for name in names if name not in apart],
        "arms": labels,
        "dense": settings.study.dense.model_copy(update={"datasets": apart, "arms": labels}),
        "seeds": sorted({cell.seed for cell in records}),
    }
    study = settings.model_copy(update={"study": settings.study.model_copy(update=plan)})
    return Study(folder, study, records, {}, lambda dataset, arm, section="arms": {})


def rows(study: Study, dataset: str, labels: tuple[str, str]) -> list[list[str]]:
    """One row a measure that both have, as HEADER names its cells: percent, points, and p of no difference."""
    made = []
    for metric in _measures(study, dataset, labels):
        found = contrast(study, dataset, labels, metric)
        first, second = (accuracy(study, dataset, label, metric) for label in labels)
        if found and first and second:
            low, high = found.interval
            numbers = [f"{first.mean:.1f}", f"{second.mean:.1f}", *(f"{n:+.1f}" for n in (found.effect, low, high))]
            seeds = ",".join(map(str, found.seeds))
            made.append(
                [metric + BLOCKED * bool(found.flags), *numbers, f"{found.mean.p_value:.2g}", str(found.n), seeds]
            )
    return made


def remarks(study: Study, dataset: str, labels: tuple[str, str]) -> Iterator[str]:
    """What keeps the two from being compared like with like, in a sentence each."""
    kept = [study.of(dataset, label) for label in labels]
    seeds = [{cell.seed for cell, _ in cells} for cells in kept]
    if len(seeds[0] & seeds[1]) == 1:
        yield "one seed in common: the intervals hold other images and say nothing of the next seed"
    if seeds[0] != seeds[1]:
        yield f"seeds of one side alone are left out: {', '.join(map(str, sorted(seeds[0] ^ seeds[1])))}"
    records = [cells[0][1] for cells in kept]
    threats = [f"{record.threat.norm} {record.threat.epsilon:g}" for record in records]
    if threats[0] != threats[1]:
        yield f"the threats differ, {threats[0]} and {threats[1]}: no accuracy under attack is of the same attack"
    if records[0].best.clean.n != records[1].best.clean.n:
        yield "the two met other test images: the intervals are wider, of images that are not paired"
    if records[0].settings.get("suite") != records[1].settings.get("suite"):
        yield "the suites of attacks differ: what has the same name may be another attack"
    if any(record.flags and any(flag.blocks for flag in record.flags) for cells in kept for _, record in cells):
        yield "‡ a blocking flag lies on a number of this line: it is no robustness"


def _measures(study: Study, dataset: str, labels: tuple[str, str]) -> list[str]:
    best = [study.of(dataset, label)[0][1].best for label in labels]
    names = ["clean", *best[0].attacks, *best[0].unseen, *best[0].measures, *best[0].scenes, "worst"]
    return [name for name in names if best[1].count(name)]
