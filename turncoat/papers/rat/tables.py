"""RAT beside every control on the same few images: accuracies, and what RAT has over each."""

from collections.abc import Sequence
from typing import Any

from turncoat.reporting.chapter import Maker
from turncoat.reporting.contrast import contrast
from turncoat.reporting.measures import accuracy
from turncoat.reporting.study import Study
from turncoat.reporting.table import Table

METRICS = ("clean", "universal", "fgsm", "pgd-20", "autoattack", "worst")
PERTURBED = {
    "targeted": "one perturbation a class",
    "universal": "one perturbation for all",
    "noise": "random signs",
    "chessboard": "chessboard",
    "none": "–",
}
SAME = ("subset", "beside", "radius", "targets")  # of RAT and its control
UNIVERSAL = (
    "universal: images that perturbations towards each other class, made anew against the arm, do not send there"
)


def controls(study: Study, dataset: str, arms: Sequence[str]) -> Table | None:
    """Every arm by the number of its training images: clean, under universal perturbations and under attack."""
    few = [arm for arm in arms if study.plan(dataset, arm)["method"] == "rat"]
    metrics = measured(study, dataset, few)
    rows = []
    for arm in [*(arm for arm in arms if arm not in few), *sorted(few, key=lambda arm: size(study, dataset, arm))]:
        plan = study.plan(dataset, arm)
        values = [accuracy(study, dataset, arm, metric) for metric in metrics]
        images = plan.get("subset") or "all"
        rows.append([arm, f"{images}", treatment(plan), *(value.text if value else "–" for value in values)])
    caption = (
        f"RAT and its controls on {dataset}, by the number of training images |S|: accuracy in percent, mean over "
        f"seeds ± half of the 95 % interval. {UNIVERSAL}"
    )
    header = ["arm", "|S|", "perturbed by", *metrics]
    return Table(f"rat-controls-{dataset}", caption, header, rows, align="lrl" + "r" * len(metrics))


def differences(study: Study, dataset: str, arms: Sequence[str]) -> Table | None:
    """What RAT has over each control that sees the same images, and over training on all of them, in points."""
    metrics = measured(study, dataset, arms)
    rows: list[list[str]] = []
    bold: set[tuple[int, int]] = set()
    for arm, others in compared(study, dataset, arms).items():
        for other in others:
            found = [contrast(study, dataset, (arm, other), metric) for metric in metrics]
            bold |= {(len(rows), 2 + place) for place, value in enumerate(found) if value and value.apart}
            rows.append([arm, other, *(value.text if value else "–" for value in found)])
    if not rows:
        return None
    caption = (
        f"What RAT has over its controls on {dataset}: difference in percentage points ± half of its 95 % interval, "
        f"over seeds and images; bold where it excludes zero. {UNIVERSAL}"
    )
    header = ["arm", "minus", *metrics]
    return Table(f"rat-differences-{dataset}", caption, header, rows, frozenset(bold), "ll" + "r" * len(metrics))


def compared(study: Study, dataset: str, arms: Sequence[str]) -> dict[str, list[str]]:
    """{RAT's first arm of each number of images: its controls on the same images, then the arms of other methods}."""
    plans = {arm: study.plan(dataset, arm) for arm in arms}
    targeted = [arm for arm in arms if plans[arm]["method"] == "rat" and plans[arm]["perturbation"] == "targeted"]
    first: dict[Any, str] = {}
    for arm in targeted:
        first.setdefault(plans[arm]["subset"], arm)
    others = [arm for arm in arms if plans[arm]["method"] != "rat"]
    found = {}
    for arm in sorted(first.values(), key=lambda arm: size(study, dataset, arm)):
        same = [
            other
            for other in arms
            if plans[other]["method"] == "rat"
            and plans[other]["perturbation"] != "targeted"
            and all(plans[other].get(key) == plans[arm].get(key) for key in SAME)
        ]
        found[arm] = [*same, *others]
    return found


def measured(study: Study, dataset: str, arms: Sequence[str]) -> list[str]:
    """Those of the metrics that at least one of the arms has."""
    return [metric for metric in METRICS if any(accuracy(study, dataset, arm, metric) for arm in arms)]


def treatment(plan: dict[str, Any]) -> str:
    """What the training images of an arm are met with, from its settings."""
    attack = plan.get("attack", {})
    steps = "FGSM" if attack.get("steps") == 1 else f"PGD-{attack.get('steps')}"
    if plan["method"] != "rat":
        return "–" if plan["method"] == "standard" else steps
    return PERTURBED.get(plan["perturbation"], steps)


def size(study: Study, dataset: str, arm: str) -> float:
    """How many training images an arm of RAT's has; infinite for all of them."""
    return float(study.plan(dataset, arm).get("subset") or "inf")


TABLES: dict[str, Maker] = {"controls": controls, "differences": differences}
