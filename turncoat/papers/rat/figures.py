"""Figures of RAT: its perturbations as images, which class gives way to which of them, FGSM over its radius."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from turncoat.files import read_json
from turncoat.papers.rat import tables
from turncoat.reporting import analysis, style
from turncoat.reporting.chapter import Drawer
from turncoat.reporting.measures import accuracy, error_bar, leader, mean
from turncoat.reporting.study import Study
from turncoat.reporting.style import COLUMN, Look, Picture

SHOWN = 10  # classes
LINES = 8  # arms in one panel
PANELS = {"before": "before", "stored": "after:\nthe same ones", "new": "after:\nmade anew"}


def class_perturbations(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """The universal perturbation towards each class as an image, one row for each way of making it.

    Drawn from `universal-<name>` (classes, C, H, W) in examples.npz, with the share of test images of other classes
    that each sends to its class, from perturbed.json; the last row is of those made anew against the retrained arm.
    """
    from matplotlib import pyplot as plt

    folder, made = _universal(study, dataset)
    if folder is None:
        return None
    with np.load(folder / "examples.npz", allow_pickle=False) as file:
        changes = {name: file[f"universal-{name}"] for name in made}
    shares = {name: [row["reached"] / row["n"] for row in entry["targets"]] for name, entry in made.items()}
    found = analysis.load(study, dataset, "rat")
    if found and found.told.get("arm") in found.arms:
        name = f"{found.told['form']},\nafter {found.told['arm']}"
        changes[name], shares[name] = found.arrays["perturbations"], list(_by_target(found, "new"))
    classes = study.classes(dataset)[:SHOWN]
    figure, grid = plt.subplots(len(changes), len(classes), figsize=(COLUMN, 0.2 + 0.46 * len(changes)), squeeze=False)
    for axes, (name, pictures) in zip(grid, changes.items(), strict=True):
        axes[0].set_ylabel(name, fontsize=6)
        for cell, image, share in zip(axes, style.magnified(pictures)[0], shares[name], strict=False):
            style.picture(cell, image)
            cell.spines[:].set(visible=True, linewidth=0.4, color="#b0b0b0")  # where an edge is white
            cell.set_xlabel(f"{100 * share:.0f} %", fontsize=6, labelpad=2)
    for cell, name in zip(grid[0], classes, strict=True):
        cell.set_title(f"→ {style.short(name)}", fontsize=5.5, pad=2)
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
    if len(sizes) != len(targets) or not all(sizes):
        return None
    grid = [
        [None if source == row["target"] else 100 * row["from"][source] / size for row in targets]
        for source, size in enumerate(sizes)
    ]
    classes = study.classes(dataset)
    figure, axes = style.shades(grid, classes, classes)
    axes.set(xlabel=f"sent to this class by its perturbation ({name}), %", ylabel="images of this class")
    most, source, target = max(
        (value, i, j) for i, line in enumerate(grid) for j, value in enumerate(line) if value is not None
    )
    return figure, (
        f"Percent of the images of each class on {dataset} that the universal perturbation towards each other class "
        f"sends there, on the standard network. The most: {most:.0f} % of class {classes[source]} to {classes[target]}."
    )


def matrices(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """The same before and after retraining: the baseline, then the arm under the same perturbations and its own."""
    from matplotlib import pyplot as plt

    found = analysis.load(study, dataset, "rat")
    if not found or found.told.get("arm") not in found.arms:
        return None
    sizes = np.array(found.told["of_class"])
    classes = [style.short(name) for name in study.classes(dataset)]
    figure, panels = plt.subplots(1, len(PANELS), figsize=(COLUMN, 1.75), sharey=True)
    said = []
    for axes, (name, title) in zip(panels, PANELS.items(), strict=True):
        percent = 100 * found.arrays[name] / np.maximum(sizes, 1)[:, None]
        np.fill_diagonal(percent, np.nan)
        shown = axes.imshow(percent, cmap="cividis", vmin=0, vmax=100)
        average = 100 * float(_by_target(found, name).mean())
        axes.set_title(f"{title}\n{average:.1f} %")
        ticks = range(0, len(classes), max(1, len(classes) // 5))
        axes.set_xticks(ticks, [classes[tick] for tick in ticks], rotation=0 if max(map(len, classes)) < 3 else 90)
        axes.set_yticks(ticks, [classes[tick] for tick in ticks])
        axes.grid(False)
        said.append(f"{title.replace(chr(10), ' ')} {average:.1f} %")
    panels[0].set_ylabel("images of this class")
    panels[1].set_xlabel("sent to this class by its perturbation")
    bar = figure.colorbar(shown, ax=panels, fraction=0.03, pad=0.02, shrink=0.8)
    bar.set_label("%", rotation=0)
    bar.outline.set_visible(False)
    return figure, (
        f"Share of the images of each class on {dataset} that the universal perturbation towards each other class "
        f"({found.told['form']}) sends there, before and after {found.told['arm']}. On average: {'; '.join(said)}."
    )


def fgsm_curves(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Accuracy under FGSM over its radius: white-box, and transferred from the network before retraining."""
    from matplotlib import pyplot as plt

    found = analysis.load(study, dataset, "rat")
    shown = [arm for arm in arms if found and arm in found.told["fgsm"] and arm in found.arms][:LINES]
    if not found or not shown:
        return None
    epsilon = study.settings.datasets[dataset].threat.epsilon
    radii = [epsilon * radius for radius in found.told["radii"]]
    n = found.told["n"]
    figure, panels = plt.subplots(1, 2, figsize=(COLUMN, 1.9 + style.legend_height(len(shown))), sharey=True)
    for axes, kind in zip(panels, ("white-box", "transferred"), strict=True):
        for arm in shown:
            counts = found.told["fgsm"][arm][kind]
            axes.plot(radii, [100 * count / n for count in counts], label=arm, **style.joined(looks[arm].line, radii))
        axes.axvline(epsilon, color=style.GREY, linewidth=0.6, linestyle=(0, (2, 2)))
        axes.set(xlabel="radius ε of FGSM", title=kind, ylim=(0, 100), xlim=(0, None))
    panels[0].set_ylabel("accuracy (%)")
    style.legend(figure, panels[0])
    place = found.told["radii"].index(1.0)
    best = {
        kind: max(shown, key=lambda arm: found.told["fgsm"][arm][kind][place]) for kind in ("white-box", "transferred")
    }
    return figure, (
        f"Accuracy of {len(shown)} arms on {n} images of {dataset} under FGSM against its radius, seed {found.seed}. "
        f"At the radius of training, {best['white-box']} keeps the most white-box, {best['transferred']} when images "
        "made against the network before retraining are transferred."
    )


def controls(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """RAT and its controls by the number of training images, one panel a measure, with intervals; axes of their own."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    few = {arm: tables.size(study, dataset, arm) for arm in arms if study.of(dataset, arm)[0][1].method == "rat"}
    metrics = [metric for metric in tables.measured(study, dataset, list(few)) if metric != "worst"]
    if len(few) < 2:
        return None
    shown = [*(arm for arm in arms if arm not in few), *sorted(few, key=lambda arm: few[arm])]
    figure, panels = plt.subplots(
        1, len(metrics), figsize=(COLUMN, 0.6 + 0.15 * len(shown)), sharey=True, squeeze=False
    )
    found = {metric: {arm: accuracy(study, dataset, arm, metric) for arm in shown} for metric in metrics}
    for axes, metric in zip(panels[0], metrics, strict=True):
        for place, arm in enumerate(shown):
            if value := found[metric][arm]:
                axes.errorbar(
                    value.mean,
                    place,
                    xerr=error_bar(value),
                    elinewidth=0.8,
                    **looks[arm].point | {"marker": "o", "markersize": 3},
                )
        axes.set_title(metric, fontsize=6.5 if len(metrics) < 5 else 5.6)
        axes.set(ylim=(len(shown) - 0.5, -0.5))
        axes.tick_params(axis="x", labelsize=5.5)
        axes.xaxis.set_major_locator(MaxNLocator(2, min_n_ticks=2))
        axes.margins(x=0.12)
    panels[0, 0].set_yticks(range(len(shown)), shown, fontsize=6)
    figure.supxlabel("accuracy, or images that no universal perturbation sends away (%)", fontsize=6.5)
    said = [
        f"{metric}: {leader({arm: v for arm, v in row.items() if v and arm in few})}" for metric, row in found.items()
    ]
    return figure, (
        f"RAT and its controls on {dataset}, from few images to all, each with its own 95 % interval; the claims "
        "compare pairs, seed by seed and image by image, and can tell more apart. Of RAT and its controls, "
        f"{'; '.join(said)}."
    )


def universal(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Share of images that one perturbation a class, made anew against each arm, sends to that class."""
    rows: dict[str, dict[str, float]] = {}
    for arm in arms:
        tables = [record.best.universal for _, record in study.of(dataset, arm)]
        if tables and all(tables):
            targets = zip(*tables, strict=True)
            rows[arm] = {seeds[0].target: 100 * mean([row.reached / row.n for row in seeds]) for seeds in targets}
    if not rows:
        return None
    figure = style.by_class(rows, "target class: images sent to it (%)")
    average = {arm: mean(list(row.values())) for arm, row in rows.items()}
    most = max(average, key=lambda arm: average[arm])
    return figure, (
        f"Percent of images of other classes that a universal perturbation sends to its target class, {len(rows)} arms "
        f"on {dataset}. {most} gives way the most: {average[most]:.0f} % on average."
    )


def _by_target(found: analysis.Analysis, name: str) -> npt.NDArray[np.float64]:
    """Share of the images of other classes that each perturbation sends to its class."""
    sizes = np.array(found.told["of_class"])
    share: npt.NDArray[np.float64] = found.arrays[name].sum(0) / np.maximum(sizes.sum() - sizes, 1)
    return share


def _universal(study: Study, dataset: str) -> tuple[Path | None, dict[str, Any]]:
    """The first seed's folder with universal perturbations, and what perturbed.json says of each way of making them."""
    for seed in study.settings.study.seeds:
        folder = study.root / "data" / "perturbed" / dataset / str(seed)
        if (folder / "perturbed.json").exists() and (made := read_json(folder / "perturbed.json").get("universal")):
            return folder, made
    return None, {}


def _share(targets: Sequence[Mapping[str, Any]]) -> float:
    return float(sum(row["reached"] for row in targets) / sum(row["n"] for row in targets))


FIGURES: dict[str, tuple[str, Drawer]] = {
    "perturbations": ("Universal perturbations as images", class_perturbations),
    "from-to": ("Which class gives way to which", from_to),
    "controls": ("RAT beside its controls", controls),
    "universal": ("Universal perturbations by target", universal),
    "matrices": ("Which class gives way, before and after", matrices),
    "fgsm-curves": ("FGSM over its radius", fgsm_curves),
}
