"""Figures of MART: misclassified against correct examples (its figure 1), and PGD beside AutoAttack."""

from collections.abc import Mapping, Sequence
from typing import Any

from turncoat.reporting import style
from turncoat.reporting.chapter import Drawer
from turncoat.reporting.contrast import contrast
from turncoat.reporting.measures import Estimate, accuracy, error_bar, leader
from turncoat.reporting.paper_figures import twins
from turncoat.reporting.study import Study
from turncoat.reporting.style import Look, Picture
from turncoat.reporting.verdicts import percent_range

TREATMENTS = {"unperturbed": "no\nperturbation", "weaker": "weaker\nattack", "regularised": "KL term\nadded"}
SUBSETS = {"misclassified": ("#D55E00", "^", -0.14), "correct": ("#0072B2", "s", 0.14)}


def subsets(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Adversarial training with one subset of the training images treated otherwise: what each subset is worth.

    The legend says how much of the subset called misclassified is so, where right images had to fill it up.
    """
    values: dict[tuple[str, str], Estimate] = {}
    for arm in arms:
        plan = study.plan(dataset, arm)
        value = accuracy(study, dataset, arm, "pgd-20")
        if plan["method"] == "misclassified" and value:
            values[plan["subset"], plan["treatment"]] = value
    shares = misclassified(study, dataset, arms)
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
        part = subset == "misclassified" and min(shares or [1.0]) < 1
        axes.plot([], [], label=f"{subset} ({percent_range(shares)} are)" if part else subset, **look)
    axes.set_xticks(range(len(treatments)), [TREATMENTS[name] for name in treatments])
    axes.set(xlabel="done to one subset of the training images", ylabel="accuracy under PGD-20 (%)")
    axes.set(xlim=(-0.5, len(treatments) - 0.5))
    axes.grid(axis="x", visible=False)
    style.legend(figure, axes)
    filled = (
        f"Of the subset called misclassified the choosing network misclassifies {percent_range(shares)}, by seed"
        + ("; the others it gets right with the smallest margins" if min(shares) < 1 else "")
        if shares
        else "How much of the subset called misclassified is so was not recorded"
    )
    said = "; ".join(f"{subset}, {treatment}: {value.text} %" for (subset, treatment), value in values.items())
    return figure, (
        f"Accuracy under PGD-20 on {dataset} of adversarial training that treats one subset of the training images "
        f"otherwise. {said}. {filled}."
    )


def misclassified(study: Study, dataset: str, arms: Sequence[str]) -> list[float]:
    """The part of the subset called misclassified that is so, by run; empty where a run did not note it."""
    chosen = [arm for arm in arms if study.plan(dataset, arm).get("subset") == "misclassified"]
    shares = [share for arm in chosen for share in study.trained(dataset, arm, "chosen_misclassified")]
    known = [share for share in shares if share is not None]
    return known if len(known) == len(shares) else []


def attacks(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """PGD-20 beside AutoAttack: an advantage under the first alone is none, and MART's is told under both."""
    pairs = {arm: [accuracy(study, dataset, arm, metric) for metric in ("pgd-20", "autoattack")] for arm in arms}
    shown = {arm: (weak, strong) for arm, (weak, strong) in pairs.items() if weak and strong}
    if not shown:
        return None
    figure = twins(shown, ("PGD-20", "AutoAttack"), "accuracy under attack (%)", looks)
    first, second = (leader({arm: pair[place] for arm, pair in shown.items()}) for place in (0, 1))
    return figure, (
        f"Accuracy of {len(shown)} arms on {dataset} under PGD-20 and under AutoAttack, with 95 % intervals. Under "
        f"PGD-20 {first}; under AutoAttack {second}.{_lead(study, dataset) if {'mart', 'pgd'} <= set(shown) else ''}"
    )


def _lead(study: Study, dataset: str) -> str:
    """MART minus PGD training under the two attacks: ahead under both, or under PGD alone, as others found."""
    found = {name: contrast(study, dataset, ("mart", "pgd"), name) for name in ("pgd-20", "autoattack")}
    said = []
    for name, gap in found.items():
        if gap:
            points = f"{gap.effect:+.1f} [{gap.interval.low:+.1f}, {gap.interval.high:+.1f}]".replace("-", "−")
            said.append(f"{points} points under {name}")
    return f" mart minus pgd: {', '.join(said)}." if said else ""


FIGURES: dict[str, tuple[str, Drawer]] = {
    "subsets": ("Misclassified against correct examples", subsets),
    "attacks": ("PGD beside AutoAttack", attacks),
}
