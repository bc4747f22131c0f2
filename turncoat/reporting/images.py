"""A figure made of images: perturbations magnified, and what the network makes of an image with its perturbation."""

from collections.abc import Mapping, Sequence

import numpy as np

from turncoat.errors import TurncoatError
from turncoat.reporting import style
from turncoat.reporting.study import Study
from turncoat.reporting.style import COLUMN, Look, Picture

COLUMNS = 6
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
    classes = study.classes(dataset)
    magnified, factor = style.magnified(adversarial - clean)

    figure, grid = plt.subplots(3, len(clean), figsize=(COLUMN, 2.2), squeeze=False)
    rows = ((clean, "image", before), (magnified, f"difference\n×{factor}", None), (adversarial, "attacked", after))
    for axes, (pictures, name, predictions) in zip(grid, rows, strict=True):
        axes[0].set_ylabel(name)
        for column, (cell, picture) in enumerate(zip(axes, pictures, strict=True)):
            style.picture(cell, picture)
            if predictions is not None:
                right = predictions[column] == labels[column]
                text = f"{style.short(classes[int(predictions[column])], style.WORD)} {'✓' if right else '✗'}"
                cell.set_xlabel(text, fontsize=6, labelpad=2, color="#005a3c" if right else "#a33f00")
    fooled = int((after != labels).sum())
    return figure, (
        f"{len(clean)} images of {dataset}, the perturbation of each magnified {factor} times, and their sum. "
        f"The standard network mistakes {fooled} of the {len(clean)} attacked images."
    )
