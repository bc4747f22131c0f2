"""The methods by name, and the arms of params.yaml checked against them."""

from typing import Any

from turncoat.errors import TurncoatError
from turncoat.methods.advamd import AdvAmd
from turncoat.methods.base import Method, Task
from turncoat.methods.fast_advprop import FastAdvProp
from turncoat.methods.mart import Mart
from turncoat.methods.misclassified import Misclassified
from turncoat.methods.pgd import PGDTraining
from turncoat.methods.standard import Standard
from turncoat.methods.trades import Trades
from turncoat.settings import ArmSettings, Settings, TrainingSettings, validate

METHODS: dict[str, type[Method[Any]]] = {
    "standard": Standard,
    "pgd": PGDTraining,
    "trades": Trades,
    "mart": Mart,
    "misclassified": Misclassified,
    "advamd": AdvAmd,
    "fast_advprop": FastAdvProp,
}


def arm_settings(settings: Settings, arm: str) -> ArmSettings:
    """The settings of `arms.<arm>`, in the class that its method names.

    Raises:
        TurncoatError: the arm or its method is not defined, or a key is unknown or out of range.
    """
    if arm not in settings.arms:
        raise TurncoatError(f"params.yaml: arms.{arm} is not defined; there are {', '.join(settings.arms)}")
    raw = settings.arms[arm]
    if raw.get("method") not in METHODS:
        raise TurncoatError(
            f"params.yaml: arms.{arm}.method: {raw.get('method')!r} is not defined; there are {', '.join(METHODS)}"
        )
    return validate(METHODS[raw["method"]].settings_class, raw, f"arms.{arm}")


def schedule(settings: Settings, dataset: str, arm: str) -> TrainingSettings:
    """The data set's `finetuning` schedule with the arm's departures from it."""
    departures = arm_settings(settings, arm).training
    known = settings.datasets[dataset].finetuning.model_dump()
    return validate(TrainingSettings, known | departures, f"arms.{arm}.training")


def check_arms(settings: Settings) -> None:
    """Check every arm that params.yaml defines, the ones outside the study too: a typing error is found at once."""
    for arm in settings.arms:
        arm_settings(settings, arm)
        for dataset in settings.study.datasets:
            schedule(settings, dataset, arm)


__all__ = ["METHODS", "Method", "Task", "arm_settings", "check_arms", "schedule"]
