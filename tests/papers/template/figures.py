"""Toy's own figure: accuracy with and without noise in training."""

from collections.abc import Mapping, Sequence

from turncoat.reporting import style
from turncoat.reporting.chapter import Drawer
from turncoat.reporting.measures import accuracy, error_bar, leader
from turncoat.reporting.study import Study
from turncoat.reporting.style import Look, Picture


def noise(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Worst-case accuracy of the arms that train on noise, one row each."""
    mine = [arm for arm in arms if study.plan(dataset, arm)["method"] == "toy"]
    shown = {arm: value for arm in mine if (value := accuracy(study, dataset, arm, "worst"))}
    if not shown:
        return None
    figure, axes = style.rows(list(shown))
    for place, (arm, value) in enumerate(shown.items()):
        axes.errorbar(value.mean, place, xerr=error_bar(value), **looks[arm].bars)
    axes.set(xlabel="worst-case accuracy (%)")
    return figure, f"Worst-case accuracy of {len(shown)} arms on {dataset}. {leader(shown)}."


FIGURES: dict[str, tuple[str, Drawer]] = {"noise": ("With and without noise", noise)}
