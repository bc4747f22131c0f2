"""A cell of a finished study as an attack meets it: the network of its record, the record's images, what stands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turncoat import data, models
from turncoat.attacks import Threat
from turncoat.data.batches import resident
from turncoat.files import read_json

FOLDERS = {"data": Path("data"), "models": Path("models"), "records": Path("reports/records")}


@dataclass(frozen=True)
class Attacked:
    """Images (n, c, h, w) and labels (n,) that a record counts, and which of them stand in its worst case (n,)."""

    record: dict[str, Any]
    worst: NDArray[np.bool_]
    model: Any
    images: Tensor
    labels: Tensor
    threat: Threat


def load(dataset: str, arm: str, seed: int, count: int | None = None, folders: dict[str, Path] = FOLDERS) -> Attacked:
    """A cell with its best weights, and the first `count` of its images.

    Raises:
        FileNotFoundError, TurncoatError: the cell has no record, or no weights, here.
    """
    cell = Path(dataset, arm, str(seed))
    record = read_json(folders["records"] / cell / "record.json")
    with np.load(folders["records"] / cell / record["examples"]["file"]) as examples:
        worst = examples["worst"][:count]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = models.load(folders["models"] / cell / "best.safetensors", device)
    test = data.load(folders["data"] / dataset).test
    split = resident(test.images[: len(worst)], test.labels[: len(worst)], device)
    return Attacked(record, worst, model, split.floats(), split.labels, Threat(**record["threat"]))
