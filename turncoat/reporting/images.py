"""Figures made of images: perturbations magnified, and what the network makes of an image with its perturbation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from turncoat.errors import TurncoatError
from turncoat.files import read_json
from turncoat.reporting.study import Study
from turncoat.reporting.style import COLUMN, Look, shades

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture: TypeAlias = "tuple[Figure, str] | None"

COLUMNS = 6
SHOWN = 10  # classes
ARRAYS = ("images", "labels", "adversarial", "prediction", "adversarial_prediction")


def perturbations(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Rows: image, perturbation, adversarial image; from the first data/perturbed/<dataset>/<seed>/examples.npz.

    The file holds `images` and `adversarial` (k, C, H, W) in [0, 1]; `labels`, `prediction` and
    `adversarial_prediction` (k,).

    Raises:
        TurncoatError: an array is absent.
    """
    from matplotlib import pyplot as plt

    folders = [study.root / "data" / "perturbed" / dataset / str(seed) for seed in study.settings.study.seeds]
    path = next((path for folder in folders if (path := folder / "examples.npz").exists()), None)
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as file:
        if absent := [name for name in ARRAYS if name not in file]:
            remedy = f"run `dvc repro -f -s perturb@{dataset}-{path.parent.name}`"
            raise TurncoatError(f"{path}: lacks {', '.join(absent)}; {remedy}")
        clean, labels, adversarial, before, after = (file[name][:COLUMNS] for name in ARRAYS)
    classes = _classes(study, dataset)
    difference = adversarial - clean
    largest = float(np.abs(difference).max()) or 1.0
    magnified = 0.5 + difference / (2 * largest)  # the largest change is drawn black or white
    factor = f"{0.5 / largest:.2g}"

    figure, grid = plt.subplots(3, len(clean), figsize=(COLUMN, 2.2), squeeze=False)
    rows = ((clean, "image", before), (magnified, f"difference\n×{factor}", None), (adversarial, "attacked", after))
    for axes, (pictures, name, predictions) in zip(grid, rows, strict=True):
        axes[0].set_ylabel(name)
        for column, (cell, picture) in enumerate(zip(axes, pictures, strict=True)):
            cell.imshow(_hwc(picture), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            cell.set(xticks=[], yticks=[])
            cell.grid(False)
            cell.spines[:].set_visible(False)
            if predictions is not None:
                right = predictions[column] == labels[column]
                text = f"{classes[int(predictions[column])]} {'✓' if right else '✗'}"
                cell.set_xlabel(text, fontsize=6, labelpad=2, color="#005a3c" if right else "#a33f00")
    fooled = int((after != labels).sum())
    return figure, (
        f"{len(clean)} images of {dataset}, the perturbation of each magnified {factor} times, and their sum. "
        f"The standard network mistakes {fooled} of the {len(clean)} attacked images."
    )


def class_perturbations(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """The universal perturbation towards each class as an image, one row for each way of making it (RAT).

    Drawn from `universal-<name>` (classes, C, H, W) in examples.npz, with the share of test images of other classes
    that each sends to its class, from perturbed.json.
    """
    from matplotlib import pyplot as plt

    folder, made = _universal(study, dataset)
    if folder is None:
        return None
    with np.load(folder / "examples.npz", allow_pickle=False) as file:
        changes = {name: file[f"universal-{name}"] for name in made}
    classes = _classes(study, dataset)[:SHOWN]
    figure, grid = plt.subplots(len(made), len(classes), figsize=(COLUMN, 0.35 + 0.55 * len(made)), squeeze=False)
    for axes, (name, pictures) in zip(grid, changes.items(), strict=True):
        largest = float(np.abs(pictures).max()) or 1.0
        axes[0].set_ylabel(name)
        for target, (cell, picture) in enumerate(zip(axes, pictures, strict=False)):
            cell.imshow(_hwc(0.5 + picture / (2 * largest)), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            cell.set(xticks=[], yticks=[])
            cell.grid(False)
            cell.spines[:].set_visible(False)
            row = made[name]["targets"][target]
            cell.set_xlabel(f"{100 * row['reached'] / row['n']:.0f} %", fontsize=6, labelpad=2)
    for cell, name in zip(grid[0], classes, strict=True):
        cell.set_title(f"→ {name}", fontsize=6, pad=2)
    reached = ", ".join(f"{name} {100 * _share(entry['targets']):.0f} %" for name, entry in made.items())
    return figure, (
        f"Universal perturbations of the standard network on {dataset}, one image for each target class. Share of "
        f"images of other classes sent to the target: {reached}."
    )


def from_to(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Which class gives way to which universal perturbation, on the standard network: percent of each class."""
    folder, made = _universal(study, dataset)
    if folder is None:
        return None
    name = max(made, key=lambda name: _share(made[name]["targets"]))  # the way of making it that goes furthest
    sizes = [row.n for row in study.of(dataset, study.arms(dataset)[0])[0][1].best.per_class]
    targets = made[name]["targets"]
    if len(sizes) != len(targets):
        return None
    grid = [
        [None if source == row["target"] else 100 * row["from"][source] / size for row in targets]
        for source, size in enumerate(sizes)
    ]
    classes = _classes(study, dataset)
    figure, axes = shades(grid, classes, classes)
    axes.set(xlabel=f"sent to this class by its perturbation ({name}), %", ylabel="images of this class")
    most, source, target = max(
        (value, i, j) for i, line in enumerate(grid) for j, value in enumerate(line) if value is not None
    )
    return figure, (
        f"Percent of the images of each class on {dataset} that the universal perturbation towards each other class "
        f"sends there, on the standard network. The most: {most:.0f} % of class {classes[source]} to {classes[target]}."
    )


def _universal(study: Study, dataset: str) -> tuple[Path | None, dict[str, Any]]:
    """The first seed's folder with universal perturbations, and what perturbed.json says of each way of making them."""
    for seed in study.settings.study.seeds:
        folder = study.root / "data" / "perturbed" / dataset / str(seed)
        if (folder / "perturbed.json").exists() and (made := read_json(folder / "perturbed.json").get("universal")):
            return folder, made
    return None, {}


def _share(targets: Sequence[Mapping[str, Any]]) -> float:
    return float(sum(row["reached"] for row in targets) / sum(row["n"] for row in targets))


def _classes(study: Study, dataset: str) -> list[str]:
    return study.of(dataset, study.arms(dataset)[0])[0][1].classes


def _hwc(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(C, H, W) in [0, 1] as matplotlib wants it: (H, W) for grey, (H, W, 3) for colour."""
    clipped = np.clip(picture, 0, 1)
    return clipped[0] if len(clipped) == 1 else clipped.transpose(1, 2, 0)
