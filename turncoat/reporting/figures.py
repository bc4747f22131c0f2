"""Figures of accuracies, one function each: it takes the study, a data set, the arms and their looks, and returns the
figure with an alternative text that says in words what it shows; None where the measures are not there.
"""

from collections.abc import Mapping, Sequence

from turncoat.reporting import images, labels, style
from turncoat.reporting.chapter import Drawer
from turncoat.reporting.measures import BLOCKED, accuracy, error_bar, mean, training_passes
from turncoat.reporting.study import Study
from turncoat.reporting.style import Look, Picture


def heat_map(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Accuracy of every arm under every attack, as a table of shades with the numbers in it."""
    metrics = ["clean", *study.attacks(dataset), "worst"]
    found = [[accuracy(study, dataset, arm, metric) for metric in metrics] for arm in arms]
    shown = [[value.mean if value else None for value in row] for row in found]
    marks = {(i, j): BLOCKED.strip() for i, row in enumerate(found) for j, v in enumerate(row) if v and v.blocked}
    figure, _ = style.shades(shown, arms, metrics, marks)
    return figure, (
        f"Heat map of {study.measure(dataset)} in percent on {dataset}: {len(arms)} arms against {', '.join(metrics)}. "
        "The main table holds the same numbers." + f"{BLOCKED} a blocking flag lies on it." * bool(marks)
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
    height = max(2.3, labels.needed(len(pairs)) + 0.5)
    figure, axes = style.canvas(height)
    for arm, (passes, worst) in pairs.items():
        axes.errorbar(passes, worst.mean, yerr=error_bar(worst), **looks[arm].bars)
    axes.set(xlabel="training cost (1000 forward passes of an image)", ylabel="worst-case accuracy (%)")
    style.log_axis(axes, [passes for passes, _ in pairs.values()])
    ends = {arm: (passes, worst.mean, looks[arm].colour) for arm, (passes, worst) in pairs.items()}
    labels.beside(axes, ends, height)
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
    figure = style.by_class(rows, "class: worst-case accuracy (%)")
    spread = {arm: max(row.values()) - min(row.values()) for arm, row in rows.items()}
    widest = max(spread, key=lambda arm: spread[arm])
    return figure, (
        f"Worst-case accuracy of each class for {len(rows)} arms on {dataset}. {widest} is the least even: "
        f"{spread[widest]:.0f} points between its best and its worst class."
    )


FIGURES: dict[str, tuple[str, Drawer]] = {
    "cost": ("Cost against benefit", cost),
    "per-class": ("Class by class", per_class),
    "perturbations": ("Images and their perturbations", images.perturbations),
    "heat-map": ("Every attack against every arm", heat_map),
}
