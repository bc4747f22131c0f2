"""One evaluation in the form of RobustBench's model-info files, for networks that stand outside a study."""

from typing import Any

from turncoat.attacks import Threat
from turncoat.evaluation.results import Evaluation

AUTOATTACK = "autoattack"  # the suites' name for the standard version


def model_info(result: Evaluation, name: str, dataset: str, threat: Threat) -> dict[str, Any]:
    """Accuracies are strings in percent, as there; what nobody told or measured is null."""
    levels = threat.epsilon * 255
    whole = threat.norm == "linf" and abs(levels - round(levels)) < 1e-6
    stood = result.correct.get(AUTOATTACK)
    return {
        "link": None,
        "name": name,
        "authors": None,
        "additional_data": None,
        "number_forward_passes": 1,
        "dataset": dataset,
        "venue": None,
        "architecture": name,
        "eps": f"{round(levels)}/255" if whole else f"{threat.epsilon:g}",
        "clean_acc": f"{100 * result.clean.mean():.2f}",
        "reported": None,
        "autoattack_acc": None if stood is None else f"{100 * stood.mean():.2f}",
        "worst_acc": f"{100 * result.worst.mean():.2f}",
        "n": len(result.clean),
        "unreliable": any(flag.blocks and flag.attack in (None, AUTOATTACK) for flag in result.flags),
        "flags": [flag.name for flag in result.flags],
    }
