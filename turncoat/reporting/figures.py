"""Figures of accuracies, one function each: it takes the study, a data set, the arms and their looks, and returns the
figure with an alternative text that says in words what it shows; None where the measures are not there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from turncoat.reporting import images, paper_figures, style
from turncoat.reporting.chapter import Drawer
from turncoat.reporting.measures import accuracy, curve, error_bar, leader, mean, training_passes
from turncoat.reporting.study import Study
from turncoat.reporting.style import COLUMN, Look, Picture

CROWD = 10  # more arms than this are drawn without their intervals, which the tables hold


def tradeoff(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Clean against worst-case accuracy, one marker an arm, intervals both ways."""
    pairs = {arm: (accuracy(study, dataset, arm, "clean"), accuracy(study, dataset, arm, "worst")) for arm in arms}
    shown = {arm: (clean, worst) for arm, (clean, worst) in pairs.items() if clean and worst}
    if not shown:
        return None
    figure, axes = style.canvas(2.5, len(shown))
    for arm, (clean, worst) in shown.items():
        bars: dict[str, Any] = {"xerr": error_bar(clean), "yerr": error_bar(worst)} if len(shown) <= CROWD else {}
        axes.errorbar(clean.mean, worst.mean, label=arm, **bars, **looks[arm].bars)
    axes.set(xlabel="clean accuracy (%)", ylabel="worst-case accuracy (%)")
    style.legend(figure, axes)
    return figure, (
        f"Scatter of clean against worst-case accuracy of {len(shown)} arms on {dataset}. In the worst case "
        f"{leader({arm: worst for arm, (_, worst) in shown.items()})}; clean "
        f"{leader({arm: clean for arm, (clean, _) in shown.items()})}."
    )


def security_curve(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Accuracy under PGD-20 over the radius epsilon; the radius of training is marked."""
    curves = {arm: points for arm in arms if len(points := curve(study, dataset, arm)) > 1}
    if not curves:
        return None
    figure, axes = style.canvas(2.4, len(curves))
    for arm, points in curves.items():
        radii = [epsilon for epsilon, _ in points]
        axes.plot(radii, [value.mean for _, value in points], label=arm, **looks[arm].line)
        if len(curves) <= CROWD:
            low, high = ([getattr(value.interval, end) for _, value in points] for end in ("low", "high"))
            axes.fill_between(radii, low, high, color=looks[arm].colour, alpha=0.1, linewidth=0)
    epsilon = study.settings.datasets[dataset].threat.epsilon
    axes.axvline(epsilon, color=style.GREY, linewidth=0.6, linestyle=(0, (2, 2)))
    axes.annotate(
        "ε of training", (epsilon, 1), (2, -1), xycoords=("data", "axes fraction"), textcoords="offset points", va="top"
    )
    axes.set(xlabel="radius ε", ylabel="accuracy under PGD-20 (%)", ylim=(0, 100), xlim=(0, None))
    style.legend(figure, axes)
    place = {arm: min(points, key=lambda point: abs(point[0] - epsilon)) for arm, points in curves.items()}
    radius = next(iter(place.values()))[0]
    return figure, (
        f"Accuracy under PGD-20 against its radius for {len(curves)} arms on {dataset}. At radius {radius:.4g} "
        f"{leader({arm: value for arm, (_, value) in place.items()})}."
    )


def heat_map(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Accuracy of every arm under every attack, as a table of shades with the numbers in it."""
    metrics = ["clean", *study.attacks(dataset), "worst"]
    found = [[accuracy(study, dataset, arm, metric) for metric in metrics] for arm in arms]
    figure, _ = style.shades([[value.mean if value else None for value in row] for row in found], arms, metrics)
    return figure, (
        f"Heat map of accuracy in percent on {dataset}: {len(arms)} arms against {', '.join(metrics)}. "
        "The main table holds the same numbers."
    )


def cost(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """What robustness costs: worst-case accuracy against all passes of training, in thousands."""
    pairs = {
        arm: (mean([training_passes(record) / 1000 for _, record in study.of(dataset, arm)]), worst)
        for arm in arms
        if (worst := accuracy(study, dataset, arm, "worst"))
    }
    if not pairs or any(passes <= 0 for passes, _ in pairs.values()):
        return None
    figure, axes = style.canvas(2.3, len(pairs))
    for arm, (passes, worst) in pairs.items():
        axes.errorbar(passes, worst.mean, yerr=error_bar(worst), label=arm, **looks[arm].bars)
    axes.set(xlabel="training cost (1000 forward passes of an image)", ylabel="worst-case accuracy (%)")
    style.log_axis(axes, [passes for passes, _ in pairs.values()])
    style.legend(figure, axes)
    dearest = max(pairs, key=lambda arm: pairs[arm][0])
    return figure, (
        f"Worst-case accuracy against training cost of {len(pairs)} arms on {dataset}. {dearest} costs the most, "
        f"{pairs[dearest][0]:,.0f} thousand forward passes of one image."
    )


def per_class(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Worst-case accuracy class by class, mean over seeds, as a table of shades."""
    rows: dict[str, dict[str, float]] = {}
    for arm in arms:
        tables = [record.best.per_class for _, record in study.of(dataset, arm)]
        if all(tables) and all(row.worst is not None and row.n for table in tables for row in table):
            classes = zip(*tables, strict=True)
            rows[arm] = {seeds[0].name: 100 * mean([(row.worst or 0) / row.n for row in seeds]) for seeds in classes}
    if not rows:
        return None
    figure, axes = style.shades(
        [list(row.values()) for row in rows.values()], list(rows), list(next(iter(rows.values())))
    )
    axes.set(xlabel="class: worst-case accuracy (%)")
    spread = {arm: max(row.values()) - min(row.values()) for arm, row in rows.items()}
    widest = max(spread, key=lambda arm: spread[arm])
    return figure, (
        f"Worst-case accuracy of each class for {len(rows)} arms on {dataset}. {widest} is the least even: "
        f"{spread[widest]:.0f} points between its best and its worst class."
    )


def training(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Validation accuracy over the epochs, clean and robust, mean over seeds."""
    from matplotlib import pyplot as plt

    columns = {"validation_clean": "clean", "validation_robust": "robust (PGD)"}
    panels = {c: {arm: line for arm in arms if (line := epochs(study, dataset, arm, c))} for c in columns}
    if not panels["validation_clean"]:
        return None
    figure, both = plt.subplots(1, 2, figsize=(COLUMN, 2.0 + style.legend_height(len(arms))), sharex=True)
    for axes, (column, lines) in zip(both, panels.items(), strict=True):
        for arm, line in lines.items():
            marks = {"markevery": max(1, len(line) // 5)}
            axes.plot([epoch for epoch, _ in line], [value for _, value in line], label=arm, **looks[arm].line | marks)
        axes.set(xlabel="epoch", title=columns[column])
    both[0].set_ylabel("validation accuracy (%)")
    style.legend(figure, both[0])
    return figure, (
        f"Validation accuracy over the epochs of {len(panels['validation_clean'])} arms on {dataset}, "
        "clean on the left and under attack on the right."
    )


def epochs(study: Study, dataset: str, arm: str, column: str) -> list[tuple[int, float]]:
    """(epoch, percent) of a validation column, the mean over seeds, for epochs at which every seed was looked at."""
    histories = [study.history(cell) for cell, _ in study.of(dataset, arm)]
    runs = [{row["epoch"]: row[column] for row in history if column in row} for history in histories]
    common = [epoch for epoch in runs[0] if all(epoch in run for run in runs)] if runs else []
    return [(epoch, 100 * mean([run[epoch] for run in runs])) for epoch in common]


FIGURES: dict[str, tuple[str, Drawer]] = {
    "tradeoff": ("Accuracy against robustness", tradeoff),
    "security-curve": ("Security curve", security_curve),
    "heat-map": ("Every attack against every arm", heat_map),
    "cost": ("Cost against benefit", cost),
    "per-class": ("Class by class", per_class),
    "training": ("Training curves", training),
    "perturbations": ("Images and their perturbations", images.perturbations),
}
PAPER_FIGURES: dict[str, tuple[str, Drawer]] = {  # with the arms of one paper alone
    "components": ("Arms and components", paper_figures.components),
    "tradeoff": FIGURES["tradeoff"],
    "security-curve": FIGURES["security-curve"],
    "training": FIGURES["training"],
    "checkpoints": ("Best against last checkpoint", paper_figures.checkpoints),
}
