"""A suite of attacks out of params.yaml: names bound to functions, their settings checked against the signatures."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from turncoat.attacks import ATTACKS, Threat
from turncoat.errors import TurncoatError
from turncoat.settings import SuiteSettings

GIVEN = ("generator", "targets", "early_stop")  # what the evaluation itself passes to an attack


@dataclass(frozen=True)
class Planned:
    """A named attack of a suite; `stored` names the perturbed images that a transfer attack takes instead."""

    function: Callable[..., Tensor] | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    stored: str | None = None

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, generator: torch.Generator
    ) -> Tensor:
        """Adversarial images (n, c, h, w) for correctly classified `images`."""
        assert self.function is not None
        takes = inspect.signature(self.function).parameters
        given = {"generator": generator, "early_stop": True}
        return self.function(
            model, images, labels, threat, **self.settings, **{k: v for k, v in given.items() if k in takes}
        )


@dataclass(frozen=True)
class Suite:
    """Attacks in the order in which they run, and the radii of the security curve in units of epsilon."""

    name: str
    attacks: Mapping[str, Planned]
    epsilons: tuple[float, ...] = ()
    images: int | None = None
    batch_size: int = 500


def plan_attack(raw: Mapping[str, Any], where: str) -> Planned:
    """One attack out of `{attack: name, setting: value, ...}`, which stands at `where` in params.yaml.

    Raises:
        TurncoatError: unknown attack or setting, a setting that is missing.
    """
    settings = dict(raw)
    name = settings.pop("attack", None)
    if name == "transfer":
        stored = settings.pop("stored", None)
        if settings or not isinstance(stored, str):
            raise TurncoatError(f"params.yaml: {where}: a transfer attack takes `stored`, a name under perturbations")
        return Planned(None, stored=stored)
    if name not in ATTACKS:
        raise TurncoatError(
            f"params.yaml: {where}.attack: {name!r} is not defined; there are transfer, {', '.join(ATTACKS)}"
        )
    parameters = inspect.signature(ATTACKS[name]).parameters.values()
    known = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in GIVEN}
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise TurncoatError(f"params.yaml: unknown {where}.{key}; {hint}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in settings:
            raise TurncoatError(f"params.yaml: {where}.{key} is missing")
    return Planned(ATTACKS[name], settings)


def build_suite(name: str, settings: SuiteSettings) -> Suite:
    """The suite that params.yaml describes under `suites.<name>`."""
    attacks = {key: plan_attack(raw, f"suites.{name}.attacks.{key}") for key, raw in settings.attacks.items()}
    return Suite(name, attacks, tuple(settings.epsilons), settings.images, settings.batch_size)
