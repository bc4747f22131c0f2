"""The methods by name, and the arms of params.yaml checked against them."""

import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from turncoat.errors import TurncoatError
from turncoat.methods.base import Method, Task
from turncoat.settings import ArmSettings, Settings, TrainingSettings, validate

Section = Literal["arms", "pretrained"]  # of params.yaml, where networks to train are described


class Lazy(Mapping[str, type[Method[Any]]]):
    """Names to classes, each of which is imported when it is first asked for: an arm rests on its own method alone."""

    def __init__(self, where: dict[str, str]) -> None:
        self.where = where

    def __getitem__(self, name: str) -> type[Method[Any]]:
        module, _, cls = self.where[name].partition(":")
        found: type[Method[Any]] = getattr(importlib.import_module(module), cls)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.where)

    def __len__(self) -> int:
        return len(self.where)


METHODS = Lazy(
    {
        "standard": "turncoat.methods.standard:Standard",
        "pgd": "turncoat.methods.pgd:PGDTraining",
        "trades": "turncoat.methods.trades:Trades",
        "mart": "turncoat.methods.mart:Mart",
        "misclassified": "turncoat.methods.misclassified:Misclassified",
        "advamd": "turncoat.methods.advamd:AdvAmd",
        "fast_advprop": "turncoat.methods.fast_advprop:FastAdvProp",
        "atop": "turncoat.methods.atop:Atop",
        "purifier": "turncoat.methods.purifying:PurifierTraining",
        "rat": "turncoat.methods.rat:Rat",
        "reverse": "turncoat.methods.reverse:Reverse",
        "adapted": "turncoat.methods.adapted:Adapted",
    }
)


def module_of(method: str) -> str:
    """Dotted name of the module that a method is defined in."""
    return METHODS.where[method].partition(":")[0]


def arm_settings(settings: Settings, arm: str, section: Section = "arms") -> ArmSettings:
    """The settings of `arms.<arm>` (or `pretrained.<arm>`), in the class that its method names.

    Raises:
        TurncoatError: the arm or its method is not defined, or a key is unknown or out of range.
    """
    arms = getattr(settings, section)
    if arm not in arms:
        raise TurncoatError(f"params.yaml: {section}.{arm} is not defined; there are {', '.join(arms) or 'none'}")
    raw = arms[arm]
    if raw.get("method") not in METHODS:
        raise TurncoatError(
            f"params.yaml: {section}.{arm}.method: {raw.get('method')!r} is not defined; there are {', '.join(METHODS)}"
        )
    return validate(METHODS[raw["method"]].settings_class, raw, f"{section}.{arm}")


def schedule(settings: Settings, dataset: str, arm: str, section: Section = "arms") -> TrainingSettings:
    """The data set's `finetuning` schedule with the arm's departures from it; `epochs: 8x` is eight times as long."""
    departures = dict(arm_settings(settings, arm, section).training)
    known = settings.datasets[dataset].finetuning.model_dump()
    if times := re.fullmatch(r"([1-9]\d*)x", str(departures.get("epochs"))):
        departures["epochs"] = int(times[1]) * known["epochs"]
    return validate(TrainingSettings, known | departures, f"{section}.{arm}.training")


def resolved(settings: Settings, dataset: str, arm: str, section: Section = "arms") -> dict[str, Any]:
    """All settings of an arm on a data set, defaults filled in: what its record says it was made with."""
    plan = arm_settings(settings, arm, section)
    start = plan.start or settings.datasets[dataset].start
    training = schedule(settings, dataset, arm, section).model_dump()
    return plan.model_dump() | {"start": start, "training": training}


def check_arms(settings: Settings) -> None:
    """Check every arm that params.yaml defines, the ones outside the study too: a typing error is found at once."""
    named: list[tuple[Section, str]] = [("arms", arm) for arm in settings.arms]
    named += [("pretrained", arm) for arm in settings.pretrained]
    for section, arm in named:
        for name in arm_settings(settings, arm, section).builds_on:
            if section == "pretrained":
                raise TurncoatError(f"params.yaml: pretrained.{arm} builds on {name}: only arms build on `pretrained`")
            arm_settings(settings, name, "pretrained")
            if arm in settings.study.arms and name not in settings.study.pretrained:
                raise TurncoatError(f"params.yaml: arms.{arm} builds on {name}: add it to study.pretrained")
        for dataset in settings.study.datasets:
            schedule(settings, dataset, arm, section)


__all__ = ["METHODS", "Method", "Task", "arm_settings", "check_arms", "module_of", "resolved", "schedule"]
