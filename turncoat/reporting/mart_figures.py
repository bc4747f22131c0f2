"""Figures of MART: misclassified against correct examples (its figure 1), and PGD beside AutoAttack."""

from collections.abc import Mapping, Sequence
from typing import Any

from turncoat.reporting import style
from turncoat.reporting.measures import Estimate, accuracy, error_bar, leader
from turncoat.reporting.paper_figures import twins
from turncoat.reporting.study import Study
from turncoat.reporting.style import Look, Picture

TREATMENTS = {"unperturbed": "no\nperturbation", "weaker": "weaker\nattack", "regularised": "KL term\nadded"}
SUBSETS = {"misclassified": ("#D55E00", "^", -0.14), "correct": ("#0072B2", "s", 0.14)}


def subsets(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Adversarial training with one subset of the training images treated otherwise: what each subset is worth."""
    values: dict[tuple[str, str], Estimate] = {}
    for arm in arms:
        plan = study.of(dataset, arm)[0][1].settings["arm"]
        value = accuracy(study, dataset, arm, "pgd-20")
        if plan["method"] == "misclassified" and value:
            values[plan["subset"], plan["treatment"]] = value
    treatments = [name for name in TREATMENTS if any((subset, name) in values for subset in SUBSETS)]
    if not treatments:
        return None
    figure, axes = style.canvas(2.2)
    if "pgd" in arms and (usual := accuracy(study, dataset, "pgd", "pgd-20")):
        axes.axhline(usual.mean, color=style.GREY, linewidth=0.8, linestyle=(0, (4, 1.2)), label="pgd")
        axes.axhspan(
            max(usual.interval.low, 0), min(usual.interval.high, 100), color=style.GREY, alpha=0.12, linewidth=0
        )
    for subset, (colour, marker, shift) in SUBSETS.items():
        look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 5}
        for place, treatment in enumerate(treatments):
            if value := values.get((subset, treatment)):
                axes.errorbar(place + shift, value.mean, yerr=error_bar(value), elinewidth=0.8, **look)
        axes.plot([], [], label=subset, **look)
    axes.set_xticks(range(len(treatments)), [TREATMENTS[name] for name in treatments])
    axes.set(xlabel="done to one subset of the training images", ylabel="accuracy under PGD-20 (%)")
    axes.set(xlim=(-0.5, len(treatments) - 0.5))
    axes.grid(axis="x", visible=False)
    style.legend(figure, axes)
    said = "; ".join(f"{subset}, {treatment}: {value.text} %" for (subset, treatment), value in values.items())
    return figure, (
        f"Accuracy under PGD-20 on {dataset} of adversarial training that treats one subset of the training images "
        f"otherwise. {said}."
    )


def attacks(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """PGD-20 beside AutoAttack: an advantage under the first alone is none."""
    pairs = {arm: [accuracy(study, dataset, arm, metric) for metric in ("pgd-20", "autoattack")] for arm in arms}
    shown = {arm: (weak, strong) for arm, (weak, strong) in pairs.items() if weak and strong}
    if not shown:
        return None
    figure = twins(shown, ("PGD-20", "AutoAttack"), "accuracy under attack (%)", looks)
    first, second = (leader({arm: pair[place] for arm, pair in shown.items()}) for place in (0, 1))
    return figure, (
        f"Accuracy of {len(shown)} arms on {dataset} under PGD-20 and under AutoAttack, with 95 % intervals. Under "
        f"PGD-20 {first}; under AutoAttack {second}."
    )
