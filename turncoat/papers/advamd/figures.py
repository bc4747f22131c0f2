"""Figures of AdvAmd: its two batch norms, and its analyses: distribution mismatch, judgement surface, vulnerability."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from turncoat.reporting import analysis, style
from turncoat.reporting.chapter import Drawer
from turncoat.reporting.measures import mean
from turncoat.reporting.study import Study
from turncoat.reporting.style import COLUMN, Look, Picture

LEADING = ("standard", "pgd", "advprop", "advamd")  # shown where they are there
GROUPS = {"mediate": (0, (4, 1.2)), "adversarial": "solid"}
BINS = 5  # of the vulnerability


def branches(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """How far main and auxiliary batch norm lie apart over the epochs, mean over seeds; who shares statistics has none.

    A gap near 0 says that there was nothing for a batch norm of its own to keep apart.
    """
    found = {arm: _gaps(study, dataset, arm) for arm in arms}
    lines = {arm: line for arm, line in found.items() if any(gap for _, gap in line)}
    if not lines:
        return None
    figure, axes = style.canvas(2.1, len(lines))
    for arm, line in lines.items():
        marks = {"markevery": max(1, len(line) // 5)}
        axes.plot(
            [epoch for epoch, _ in line],
            [gap for _, gap in line],
            label=arm,
            **style.joined(looks[arm].line, line) | marks,
        )
    axes.set(xlabel="epoch", ylabel="gap of means (deviations)", ylim=(0, None))
    style.legend(figure, axes)
    said = ", ".join(f"{arm} {line[-1][1]:.3f}" for arm, line in lines.items())
    return figure, (
        f"How far the running means of main and auxiliary batch norm lie apart on {dataset}, in deviations of the main "
        f"one, over the epochs, mean over all channels and seeds. In the last epoch: {said}."
    )


def _gaps(study: Study, dataset: str, arm: str) -> list[tuple[int, float]]:
    """(epoch, gap of the branches), the mean over seeds, for epochs that every seed has."""
    runs = [
        {row["epoch"]: row["branch_gap"] for row in study.history(cell) if "branch_gap" in row}
        for cell, _ in study.of(dataset, arm)
    ]
    common = [epoch for epoch in runs[0] if all(epoch in run for run in runs)]
    return [(epoch, mean([run[epoch] for run in runs])) for epoch in common]


def mismatch(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """How far mediate and adversarial images lie from benign ones: at every batch norm, and in the last features."""
    from matplotlib import pyplot as plt

    found, shown = _analysed(study, dataset, arms)
    if not found:
        return None
    told = {arm: found.told["mismatch"][arm] for arm in shown}
    figure, (left, right) = plt.subplots(1, 2, figsize=(COLUMN, 2.15), width_ratios=(1.6, 1))
    for arm, gaps in told.items():
        layers = range(1, len(gaps["layers"]) + 1)
        for group, dash in GROUPS.items():
            look: dict[str, Any] = looks[arm].line | {"linestyle": dash}
            if len(layers) > 8:
                look["marker"] = ""
            if group == "mediate":
                look |= {"markerfacecolor": "white", "markeredgewidth": 0.8}
            left.plot(layers, [layer[group]["divergence"] for layer in gaps["layers"]], **look)
        apart = [gaps["features"][group]["distance"] for group in GROUPS]
        right.plot(range(len(GROUPS)), apart, **style.joined(looks[arm].line, apart))
        left.plot([], [], label=arm, **looks[arm].line | {"linestyle": "solid"})
    left.set_yscale("log")
    left.set(xlabel="batch norm, from the input on", ylabel="KL divergence from benign")
    right.set(ylabel="distance of last features", ylim=(0, None), xlim=(-0.3, len(GROUPS) - 0.7))
    right.set_xticks(range(len(GROUPS)), list(GROUPS))
    for group, dash in GROUPS.items():
        fill = "white" if group == "mediate" else style.GREY
        left.plot([], [], color=style.GREY, linestyle=dash, marker="o", markerfacecolor=fill, label=group)
    style.legend(figure, left)
    last = {arm: gaps["layers"][-1] for arm, gaps in told.items()}
    most = max(last, key=lambda arm: last[arm]["adversarial"]["divergence"])
    return figure, (
        f"Distribution mismatch on {dataset}: KL divergence of mediate and adversarial images from benign ones at "
        f"every batch norm, and distance of the last features, for {', '.join(shown)}. At the last batch norm {most} "
        f"has the most, {last[most]['adversarial']['divergence']:.2f}, mediates "
        f"{last[most]['mediate']['divergence']:.2f}."
    )


def surface(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Loss and decision along the adversarial direction and across it, averaged over images; one column a network.

    White lines in the lower row are single images' borders between right and wrong.
    """
    from matplotlib import pyplot as plt

    found, shown = _analysed(study, dataset, arms)
    if not found:
        return None
    losses = {arm: found.arrays[f"loss-{arm}"] for arm in shown}
    levels = np.linspace(0, max(1e-3, *(float(loss.max()) for loss in losses.values())), 13)
    figure, grid = plt.subplots(
        2, len(shown), figsize=(COLUMN, 2.55), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for column, arm in enumerate(shown):
        told = found.told["surface"][arm]
        at = told["at"]
        loss = grid[0, column].contourf(at, at, losses[arm].T, levels=levels, cmap="cividis", extend="max")
        right = grid[1, column].imshow(
            100 * found.arrays[f"accuracy-{arm}"].T,
            extent=(at[0], at[-1], at[0], at[-1]),
            origin="lower", cmap="cividis", vmin=0, vmax=100, aspect="auto", interpolation="bilinear",
        )  # fmt: skip
        for label, predicted in zip(told["labels"], found.arrays[f"decisions-{arm}"], strict=True):
            inside = (predicted == label).astype(float).T
            if 0 < inside.mean() < 1:
                grid[1, column].contour(at, at, inside, levels=[0.5], colors="white", linewidths=0.6)
        for axes in grid[:, column]:
            axes.plot([0, 1], [0, 0], color="white", linewidth=0.8, marker="o", markersize=3, markeredgecolor="black")
            axes.grid(False)
            axes.set(xticks=[0, 1], yticks=[0, 1])
        grid[0, column].set_title(arm)
        grid[0, column].set_xlabel(f"bend {told['roughness']:.1f}", fontsize=6)
        grid[1, column].set_xlabel("along")
    for axes in grid[:, 0]:
        axes.set_ylabel("across")
    figure.colorbar(loss, ax=grid[0, :], fraction=0.04, pad=0.02, label="loss", format="%.1f")
    figure.colorbar(right, ax=grid[1, :], fraction=0.04, pad=0.02, label="right (%)")
    bends = {arm: found.told["surface"][arm]["roughness"] for arm in shown}
    smooth = min(bends, key=lambda arm: bends[arm])
    return figure, (
        f"Judgement surface on {dataset}: mean loss and share of right decisions along the adversarial direction and "
        f"across it, for {', '.join(shown)}. The loss bends the least for {smooth}: {bends[smooth]:.1f}."
    )


def by_vulnerability(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Accuracy over how much the attack took from the baseline's confidence in an image, mean over seeds."""
    from matplotlib import pyplot as plt

    found = analysis.load(study, dataset, "advamd")
    if not found:
        return None
    vulnerable = found.arrays["vulnerability"]
    curves: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
    for arm in [name for name in LEADING if name in arms] or arms[:4]:
        for metric in ("clean", "pgd-20"):
            outcomes = study.outcomes([cell for cell, _ in study.of(dataset, arm)], metric)
            if outcomes and outcomes[1] == list(range(len(vulnerable))):
                _, right = binned(vulnerable, outcomes[0].mean(0))
                curves.setdefault(metric, {})[arm] = right
    if "clean" not in curves:
        return None
    counts, _ = binned(vulnerable, np.zeros(len(vulnerable)))
    shown = list(curves["clean"])
    figure, panels = plt.subplots(
        1, len(curves), figsize=(COLUMN, 2.0 + style.legend_height(len(shown))), sharey=True, squeeze=False
    )
    middles = (np.arange(BINS) + 0.5) / BINS
    for axes, (metric, lines) in zip(panels[0], curves.items(), strict=True):
        for arm, right in lines.items():
            axes.plot(middles, 100 * right, label=arm, **looks[arm].line)
        axes.set(title=metric, xlabel="vulnerability of the baseline", xlim=(0, 1), ylim=(0, 103))
    for middle, count in zip(middles, counts, strict=True):
        panels[0, 0].annotate(f"{count}", (middle, 0), (0, 2), textcoords="offset points", ha="center", fontsize=5.5)
    panels[0, 0].annotate("images:", (0.02, 0), (0, 9), textcoords="offset points", fontsize=5.5)
    panels[0, 0].set_ylabel("accuracy (%)")
    style.legend(figure, panels[0, 0])
    clean = {arm: 100 * right[-1] for arm, right in curves["clean"].items()}
    said = ", ".join(f"{arm} {value:.1f} %" for arm, value in clean.items())
    return figure, (
        f"Accuracy on {dataset} by how much {found.attack} takes from the baseline's confidence in an image, in {BINS} "
        f"bins of {', '.join(map(str, counts))} images, clean and under PGD-20. Clean on the most vulnerable: {said}."
    )


def binned(
    vulnerable: npt.NDArray[np.floating], right: npt.NDArray[np.floating], bins: int = BINS
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Images in each of the bins of equal width of a vulnerability in [0, 1], and the mean of `right` there, or nan.

    Raises:
        ValueError: arrays of different lengths, or a vulnerability outside [0, 1].
    """
    if len(vulnerable) != len(right) or not (vulnerable.min() >= 0 and vulnerable.max() <= 1):
        raise ValueError("vulnerable: a value in [0, 1] is wanted for each image")
    place = np.minimum((vulnerable * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        return counts.tolist(), np.bincount(place, right, minlength=bins) / counts


def _analysed(study: Study, dataset: str, arms: Sequence[str]) -> tuple[analysis.Analysis | None, list[str]]:
    """The analysis and the networks to show, four at most; None without any."""
    found = analysis.load(study, dataset, "advamd")
    there = [arm for arm in arms if found and arm in found.arms and arm in found.told["surface"]]
    shown = [arm for arm in LEADING if arm in there] or there[: len(LEADING)]
    return (found, shown) if shown else (None, [])


FIGURES: dict[str, tuple[str, Drawer]] = {
    "branches": ("Main and auxiliary batch norm apart", branches),
    "mismatch": ("Mismatch of distributions", mismatch),
    "surface": ("Judgement surface", surface),
    "by-vulnerability": ("Accuracy by vulnerability", by_vulnerability),
}
