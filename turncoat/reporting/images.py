"""A figure made of images: perturbations magnified, and what the network makes of an image with its perturbation."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from turncoat.errors import TurncoatError
from turncoat.reporting import style
from turncoat.reporting.study import Study
from turncoat.reporting.style import COLUMN, Look, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# images (k, C, H, W), and for each what the network says and whether it is right
Strip: TypeAlias = "tuple[npt.NDArray[np.float32], Sequence[tuple[str, bool]] | None]"

COLUMNS = 6
RIGHT, WRONG = "#005a3c", "#a33f00"
ARRAYS = ("images", "labels", "adversarial", "prediction", "adversarial_prediction")


def perturbations(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Rows: image, perturbation, adversarial image; from the first data/perturbed/<dataset>/<seed>/examples.npz.

    The file holds `images` and `adversarial` (k, C, H, W) in [0, 1]; `labels`, `prediction` and
    `adversarial_prediction` (k,).

    Raises:
        TurncoatError: an array is absent.
    """
    folders = [study.root / "data" / "perturbed" / dataset / str(seed) for seed in study.settings.study.seeds]
    path = next((path for folder in folders if (path := folder / "examples.npz").exists()), None)
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as file:
        if absent := [name for name in ARRAYS if name not in file]:
            remedy = f"run `dvc repro -f -s perturb@{dataset}-{path.parent.name}`"
            raise TurncoatError(f"{path}: lacks {', '.join(absent)}; {remedy}")
        clean, labels, adversarial, before, after = (file[name][:COLUMNS] for name in ARRAYS)
    classes = study.classes(dataset)
    magnified, factor = style.magnified(adversarial - clean)

    rows = {
        "image": (clean, answered(classes, before, labels)),
        f"difference\n×{factor}": (magnified, None),
        "attacked": (adversarial, answered(classes, after, labels)),
    }
    figure = strips(rows, 2.2)
    fooled = int((after != labels).sum())
    return figure, (
        f"{len(clean)} images of {dataset}, the perturbation of each magnified {factor} times, and their sum. "
        f"The standard network mistakes {fooled} of the {len(clean)} attacked images."
    )


def answered(
    classes: Sequence[str],
    predicted: npt.NDArray[np.integer],
    labels: npt.NDArray[np.integer],
    confidence: npt.NDArray[np.floating] | None = None,
    letters: int = style.WORD,
) -> list[tuple[str, bool]]:
    """What stands below each image: the class that the network says (k,), right or not, and how sure it is."""
    sure = [""] * len(labels) if confidence is None else [f"\n{100 * value:.0f} %" for value in confidence]
    return [
        (f"{style.short(classes[int(said)], letters)} {'✓' if said == label else '✗'}{more}", bool(said == label))
        for said, label, more in zip(predicted, labels, sure, strict=True)
    ]


def strips(rows: Mapping[str, Strip], height: float, titles: Sequence[str] = ()) -> "Figure":
    """Rows of images, one column wide, each named at its left, with the answers below them; `titles` above all."""
    from matplotlib import pyplot as plt

    columns = len(next(iter(rows.values()))[0])
    figure, grid = plt.subplots(len(rows), columns, figsize=(COLUMN, height), squeeze=False)
    for axes, (name, (pictures, answers)) in zip(grid, rows.items(), strict=True):
        axes[0].set_ylabel(name, fontsize=6)
        for column, (cell, picture) in enumerate(zip(axes, pictures, strict=True)):
            style.picture(cell, picture)
            if answers is not None:
                text, right = answers[column]
                size = 6 if "\n" not in text else 5.2
                cell.set_xlabel(text, fontsize=size, labelpad=2, color=RIGHT if right else WRONG)
    for cell, title in zip(grid[0], titles, strict=False):
        cell.set_title(title, fontsize=5, pad=2)
    return figure
