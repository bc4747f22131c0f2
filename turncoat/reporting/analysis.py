"""What the stage `analyse` left behind for one paper: reports/analysis/<dataset>/analysis.json and arrays.npz."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from turncoat.files import read_json
from turncoat.reporting.cell import Cell
from turncoat.reporting.study import Study


@dataclass(frozen=True)
class Analysis:
    """A paper's section of analysis.json, its arrays by name, and the arms whose records are of the same weights."""

    seed: int
    attack: str
    told: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]
    arms: tuple[str, ...]


def load(study: Study, dataset: str, paper: str) -> Analysis | None:
    """The analysis of a data set for a paper; None where there is none."""
    folder = study.root / "reports" / "analysis" / dataset
    if not (folder / "analysis.json").exists():
        return None
    found = read_json(folder / "analysis.json")
    if paper not in found:
        return None
    records = {arm: study.records.get(Cell(dataset, arm, found["seed"])) for arm in found["weights"]}
    same = (arm for arm, record in records.items() if record and record.weights["best"] == found["weights"][arm])
    with np.load(folder / "arrays.npz", allow_pickle=False) as file:
        arrays = {name.removeprefix(f"{paper}-"): file[name] for name in file.files if name.startswith(f"{paper}-")}
    return Analysis(found["seed"], found["attack"], found[paper], arrays, tuple(same))
