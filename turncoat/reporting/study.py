"""The study as its files tell it: the cells that params.yaml names, and the record of each, or why there is none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from turncoat.errors import TurncoatError
from turncoat.files import read_json, sha256
from turncoat.reporting.cell import Cell
from turncoat.reporting.record import Record
from turncoat.reporting.statistics import Outcomes
from turncoat.settings import Settings
from turncoat.tuning import put

Section: TypeAlias = Literal["arms", "pretrained"]  # of the settings, where networks to train are described


class Resolve(Protocol):
    """An arm's settings on a data set, every default filled in, as a record holds them; or those of `pretrained`."""

    def __call__(self, dataset: str, arm: str, section: Section = "arms") -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Study:
    """Everything the report is made of. `records` and `missing` together hold every cell that params.yaml names.

    `beside`: the folders of records that no arm of the study made (beside.py). Each is shown like an arm, which
    `settings.study.arms` then names at its end, with the one seed that it was evaluated with.
    """

    root: Path
    settings: Settings
    records: Mapping[Cell, Record]
    missing: Mapping[Cell, str]
    resolve: Resolve
    beside: Mapping[Cell, Path] = field(default_factory=dict)

    def of(self, dataset: str, arm: str) -> list[tuple[Cell, Record]]:
        """The cells of one arm on one data set that have a record, by seed."""
        cells = [self.cell(dataset, arm, seed) for seed in self.settings.study.seeds]
        cells += [cell for cell in self.beside if (cell.dataset, cell.arm) == (dataset, arm) and cell not in cells]
        return [(cell, self.records[cell]) for cell in cells if cell in self.records]

    def task(self, dataset: str) -> str:
        """What the data set's images are for."""
        return self.settings.datasets[dataset].task if dataset in self.settings.datasets else "classification"

    def measure(self, dataset: str) -> str:
        """What stands under `clean` and an attack's name, in words."""
        return {"segmentation": "mIoU", "detection": "AP"}.get(self.task(dataset), "accuracy")

    def cell(self, dataset: str, arm: str, seed: int) -> Cell:
        """One cell of the study."""
        return Cell(dataset, arm, seed, dataset in self.settings.study.dense.datasets)

    def suite(self, dataset: str) -> str:
        """The name of the suite that the data set's cells met."""
        study = self.settings.study
        return study.dense.suite if dataset in study.dense.datasets else study.suite

    def command(self, cell: Cell) -> str:
        """The shell command that makes the cell's record anew."""
        record = self.records.get(cell)
        return (record.command if record else None) or cell.command

    def plan(self, dataset: str, arm: str) -> dict[str, Any]:
        """The arm's settings, every default filled in, as its first record holds them."""
        settings: dict[str, Any] = self.of(dataset, arm)[0][1].settings["arm"]
        return settings

    def arms(self, dataset: str, among: Sequence[str] | None = None) -> list[str]:
        """Arms with at least one record on the data set, in the order of the study."""
        arms = self.settings.study.arms_on(dataset)
        return [arm for arm in arms if (among is None or arm in among) and self.of(dataset, arm)]

    def arms_of(self, dataset: str, method: str, among: Sequence[str]) -> list[str]:
        """Those of `among` with a record, if one of them is of the method; its comparators alone say nothing of it."""
        arms = self.arms(dataset, among)
        return arms if any(record.method == method for arm in arms for _, record in self.of(dataset, arm)) else []

    @property
    def datasets(self) -> list[str]:
        """Data sets with at least one record, in the order of the study."""
        return [dataset for dataset in self.settings.study.every if self.arms(dataset)]

    def classes(self, dataset: str) -> list[str]:
        """Names of the classes, as the records of the data set have them."""
        return self.of(dataset, self.arms(dataset)[0])[0][1].classes

    def attacks(self, dataset: str) -> list[str]:
        """The suite's attacks that some record of the data set met, in the suite's order."""
        met = self.met(dataset)
        return [name for name in self.settings.suites[self.suite(dataset)].attacks if name in met]

    def met(self, dataset: str) -> list[str]:
        """All attacks that some record of the data set met: the suite's, then those of second looks."""
        suite = list(self.settings.suites[self.suite(dataset)].attacks)
        records = (record for arm in self.arms(dataset) for _, record in self.of(dataset, arm))
        met = {name: None for record in records for name in record.best.attacks}
        return [name for name in suite if name in met] + [name for name in met if name not in suite]

    def path(self, cell: Cell, file: str = "record.json") -> Path:
        """A file beside the cell's record."""
        if cell in self.beside:
            return self.root / self.beside[cell] / file
        return self.root / "reports" / "records" / cell.dataset / cell.arm / str(cell.seed) / file

    def history(self, cell: Cell) -> list[dict[str, Any]]:
        """One row an epoch; empty where training left none."""
        path = self.root / "models" / cell.dataset / cell.arm / str(cell.seed) / "history.json"
        return list(read_json(path)) if path.exists() else []

    def trained(self, dataset: str, arm: str, column: str) -> list[float | None]:
        """What training noted under a column in its last epoch, one value a seed; None where it noted nothing."""
        rows = [self.history(cell)[-1:] for cell, _ in self.of(dataset, arm)]
        return [row[0].get(column) if row else None for row in rows]

    def provenance(self, cell: Cell) -> dict[str, Any]:
        """Commit, versions, hardware; empty where evaluation left none. Never a source of results."""
        path = self.path(cell, "provenance.json")
        return dict(read_json(path)) if path.exists() else {}

    def outcomes(
        self, cells: Sequence[Cell], metric: str, seen: Sequence[str] = ()
    ) -> tuple[Outcomes, list[int]] | None:
        """Right or wrong per image, (cells, images), and the images' indices; None where some cell kept none.

        Where a metric pools several trials an image (`Checkpoint.count`): the fraction of them.

        Args:
            seen: what `shifts-seen` are.

        Raises:
            TurncoatError: a file that is not the one its record names, or cells that met different images.
        """
        rows, index = [], None
        for cell in cells:
            path = self.path(cell, "examples.npz")
            if not path.exists():
                return None
            self.check_examples(cell)
            arrays = examples(str(path), self.records[cell].examples["sha256"])
            if (row := _by_image(arrays, metric, self.records[cell], seen)) is None:
                return None
            rows.append(row)
            if index is None:
                index = arrays["index"].tolist()
            elif index != arrays["index"].tolist():
                raise TurncoatError(f"{path}: other test images than {cells[0]}; run `{self.command(cell)}`")
        return (np.stack(rows), index or []) if rows else None

    def check_examples(self, cell: Cell) -> None:
        """Refuse outcomes of images that the record does not name.

        Raises:
            TurncoatError: the file and the command that makes it anew.
        """
        path = self.path(cell, "examples.npz")
        if sha256(path) != self.records[cell].examples["sha256"]:
            raise TurncoatError(f"{path}: not the file its record names; run `{self.command(cell)}`")


@lru_cache(maxsize=1024)
def examples(path: str, checksum: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an examples.npz whose checksum was verified; read once, for every claim that pairs the cell."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _by_image(
    arrays: Mapping[str, npt.NDArray[Any]], metric: str, record: Record, seen: Sequence[str]
) -> npt.NDArray[Any] | None:
    """(n,) right or wrong under a metric, or the fraction of an image's trials; None where it is not in the arrays."""
    if metric in arrays:
        return arrays[metric].astype(bool)
    if metric == "worst" and record.best.worst is not None:
        names = ["clean", *record.best.worst.attacks]
        together = [arrays[name].astype(bool) for name in names if name in arrays]
        return np.logical_and.reduce(together) if len(together) == len(names) else None
    if metric == "universal":  # an image is tried by each class but its own
        names = [f"universal {place}" for place in range(len(record.classes))]
        if any(name not in arrays for name in names):
            return None
        tried = [arrays["label"] != place for place in range(len(names))]
        return np.average([arrays[name] for name in names], axis=0, weights=tried)
    trials = [arrays[row.name] for row in record.best.pooled(metric, seen) if row.name in arrays]
    whole = len(trials) == len(record.best.pooled(metric, seen)) > 0
    return np.stack(trials).mean(0) if whole else None


def expected(settings: Settings) -> list[Cell]:
    """Every cell that params.yaml names, data set by data set. Nothing on disk adds to this list."""
    study = settings.study
    return [
        Cell(dataset, arm, seed, dataset in study.dense.datasets)
        for dataset in study.every
        for arm in study.arms_on(dataset)
        for seed in study.seeds
    ]


def load(settings: Settings, resolve: Resolve, root: Path | str = ".", kept: bool = False) -> Study:
    """Read the record of every expected cell; a cell without one, or with one from other settings, goes to `missing`.

    Args:
        resolve: what the records are to have been made with.
        kept: the records were compared with these settings when they were kept; defaults may have changed since.

    Raises:
        TurncoatError: a record that cannot be read: broken JSON, a missing field, a count above its n.
    """
    records: dict[Cell, Record] = {}
    missing: dict[Cell, str] = {}
    study = Study(Path(root), settings, records, missing, resolve)
    for cell in expected(settings):
        path = study.path(cell)
        if not path.exists():
            missing[cell] = "no record"
            continue
        record = read_record(path, cell.command)
        if Cell(record.cell.dataset, record.cell.arm, record.cell.seed) != cell:
            missing[cell] = f"its record is of {record.cell.dataset}/{record.cell.arm}/{record.cell.seed}"
        elif not kept and (departure := _departure(record, cell, settings, resolve)):
            missing[cell] = f"its record is from other settings: {departure} has changed"
        else:
            records[cell] = record
    return study


def read_record(path: Path, command: str) -> Record:
    """A record; `command` makes it anew.

    Raises:
        TurncoatError: as `load`.
    """
    try:
        return Record.model_validate(read_json(path))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise TurncoatError(f"{path}: {where}: {fault['msg']}; run `{command}`") from error


def _departure(record: Record, cell: Cell, settings: Settings, resolve: Resolve) -> str | None:
    """The first setting of params.yaml that the record was not made with, as a dotted path, or None."""
    expected = resolve(cell.dataset, cell.arm)
    if (grid := settings.arms[cell.arm].get("tune")) is not None:  # what the trials came to stands in the record alone
        if record.tuning is None or record.tuning.grid != grid:
            return f"arms.{cell.arm}.tune"
        plan = settings.study.tuning
        if record.tuning.seeds != plan.seeds or len(record.tuning.trials) != len(plan.trials):
            return "study.tuning"
        expected = put(expected, record.tuning.chosen)
    found = _difference(expected, record.settings.get("arm"), f"arms.{cell.arm}")
    return found or met_otherwise(record, cell, settings)


def met_otherwise(record: Record, cell: Cell, settings: Settings) -> str | None:
    """The first setting of the data set or the suite that it was not evaluated with, as a dotted path, or None."""
    dense = cell.dataset in settings.study.dense.datasets
    suite = settings.study.dense.suite if dense else settings.study.suite
    recorded = record.settings
    of_dataset = recorded.get("dataset", {})  # what a cell hangs on: threat and network; its schedule is in the arm
    dataset = {key: value for key, value in settings.datasets[cell.dataset].model_dump().items() if key in of_dataset}
    if dataset.get("baseline"):
        dataset["baseline"] = _given(dataset["baseline"], of_dataset["baseline"])
    return _difference(dataset, of_dataset, f"datasets.{cell.dataset}") or _difference(
        {"name": suite, **settings.suites[suite].model_dump()}, recorded.get("suite"), f"suites.{suite}"
    )


def _given(asked: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """What settings say of given weights; what they leave to the file, checksum and normalisation, is the record's."""
    plain = isinstance(asked["normalisation"], Mapping)
    return {
        "weights": Path(asked["weights"]).name,
        "sha256": asked["sha256"] or told.get("sha256"),
        "normalisation": asked["normalisation"] if plain else told.get("normalisation"),
    }


def _difference(now: Any, then: Any, where: str) -> str | None:
    """Where two trees of settings part, as a dotted path; None where they are the same."""
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        keys = [*now, *(key for key in then if key not in now)]
        return next((d for key in keys if (d := _difference(now.get(key), then.get(key), f"{where}.{key}"))), None)
    if isinstance(now, float) and isinstance(then, int | float):
        return None if math.isclose(now, then, rel_tol=1e-12) else where
    return None if now == then else where
