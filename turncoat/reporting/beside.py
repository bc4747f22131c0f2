"""Networks beside the study's arms: records that `python -m turncoat.evaluation --record` wrote, as study.beside names.

Such a network is shown like an arm of one seed, in every table and figure that goes by arms. No claim is about it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from turncoat.errors import TurncoatError
from turncoat.files import sha256
from turncoat.reporting.cell import Cell
from turncoat.reporting.record import Record
from turncoat.reporting.study import Resolve, Study, met_otherwise, read_record
from turncoat.reporting.study import load as of_cells
from turncoat.settings import Settings


def checksums(settings: Settings, root: Path | str = ".") -> dict[str, str]:
    """Folder -> SHA-256 of its record.

    Raises:
        TurncoatError: there is no record; the command that makes one is told.
    """
    return {folder: sha256(_there(Path(root) / folder, folder) / "record.json") for folder in settings.study.beside}


def load(settings: Settings, resolve: Resolve, root: Path | str = ".", kept: bool = False) -> Study:
    """The study as `study.load` reads it, with the records that its settings name beside its arms.

    One that met other attacks, another threat or other images than the study's cells goes to `missing`.

    Raises:
        TurncoatError: as `study.load` and `checksums`.
    """
    study = of_cells(settings, resolve, root, kept)
    names = settings.study
    if not names.beside:
        return study
    records, missing, beside = dict(study.records), dict(study.missing), dict(study.beside)
    for folder in names.beside:
        path = _there(study.root / folder, folder) / "record.json"
        record = read_record(path, f"python -m turncoat.evaluation ... --record {folder}")
        cell = Cell(record.cell.dataset, PurePosixPath(folder).name, record.cell.seed)
        beside[cell] = Path(folder)
        if why := _apart(replace(study, beside=beside), cell, record, kept):
            missing[cell] = why
        else:
            records[cell] = record
    shown = list(dict.fromkeys(cell.arm for cell in beside if cell in records))
    settings = settings.model_copy(update={"study": names.model_copy(update={"arms": [*names.arms, *shown]})})
    settings._says = {**study.settings.says, **_said(records, beside)}
    return replace(study, settings=settings, records=records, missing=missing, beside=beside)


def _there(path: Path, folder: str) -> Path:
    if not (path / "record.json").is_file():
        raise TurncoatError(
            f"study.beside: {folder} holds no record.json; `python -m turncoat.evaluation --model ... --data ... "
            f"--suite ... --record {folder}` makes it"
        )
    return path


def _said(records: Mapping[Cell, Record], beside: Mapping[Cell, Path]) -> dict[str, str]:
    told = {cell.arm: records[cell].settings["arm"] for cell in beside if cell in records}
    return {
        arm: f"not of this study: {of['network']}" + (f" with {of['weights']}" if of.get("weights") else "")
        for arm, of in told.items()
    }


def _apart(study: Study, cell: Cell, record: Record, kept: bool) -> str | None:
    """Why the record cannot stand beside the study's; None: it can."""
    settings = study.settings
    if cell.dataset not in settings.study.datasets:
        return f"its record is of {cell.dataset}, which study.datasets lacks"
    if not kept and (departure := met_otherwise(record, cell, settings)):
        return f"its record is from other settings: {departure}"
    path = study.path(cell, "examples.npz")
    if not path.is_file() or sha256(path) != record.examples["sha256"]:
        return f"{path} is not the file that its record names"
    for other, theirs in study.records.items():
        if other.dataset == cell.dataset and (file := study.path(other, "examples.npz")).is_file():
            same = record.classes == theirs.classes and np.array_equal(_labels(path), _labels(file))
            return None if same else f"it met other test images than {other}"
    return None


def _labels(path: Path) -> NDArray[np.int64]:
    with np.load(path, allow_pickle=False) as arrays:
        labels: NDArray[np.int64] = arrays["label"]
    return labels
