"""A suite of attacks out of params.yaml: names bound to functions, every setting checked before anything runs."""

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from turncoat.attacks import ATTACKS, CORRUPTIONS, SHIFTS, Threat, pgd, universal_deepfool, universal_sgd
from turncoat.attacks.shifts import SEVERITIES
from turncoat.attacks.wrappers import AVERAGES
from turncoat.errors import TurncoatError
from turncoat.evaluation.planned import PRECISIONS, TARGETED, Attack, Planned
from turncoat.evaluation.results import SECOND_LOOK, TAKEN, WORST_UNDER
from turncoat.settings import SHARES, Auto, SuiteSettings, ThreatSettings, validate

# What the evaluation itself passes to an attack.
GIVEN = ("generator", "targets", "early_stop", "clean_logits", "progress", "batch_size", "mode", "target")
# What an entry may say beside the settings of its attack.
OF_THE_ENTRY = (
    "threat", "eot", "average", "doublings", "among", "fixed", "bpda", "alone", "deterministic", "stepwise",
    "targeted", "precision",
)  # fmt: skip
AMONG = ("clean", "standing")
MOST = 12  # doublings: 4,096 times the passes
UNIVERSAL: dict[str, Attack] = {"deepfool": universal_deepfool, "sgd": universal_sgd}


@dataclass(frozen=True)
class Suite:
    """Attacks in the order in which they run.

    Attributes:
        radii: of the security curve, in units of epsilon.
        images: the first so many test images; None: all.
        batch_size: images that an attack works on at a time; "auto": what `turncoat.attacks.capacity` finds.
        shifts, corruptions, severities: names in `turncoat.attacks.SHIFTS` and `CORRUPTIONS`, each in 1 to 5.
        universal: `form` (deepfool or sgd) and settings of the perturbations made for each class; empty: none.
        audit: standing images on which AutoAttack is run in full where the suite lacks it, see audit.py; 0: none.
    """

    name: str
    attacks: Mapping[str, Planned]
    radii: tuple[float, ...] = ()
    images: int | None = None
    batch_size: int | Auto = 500
    shifts: tuple[str, ...] = ()
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = SEVERITIES
    universal: Mapping[str, Any] = field(default_factory=dict)
    audit: int = 0

    def short(self) -> "Suite":
        """The attack by which the last weights are compared with the best: `pgd-20`, or else the first PGD."""
        named = [name for name, plan in self.attacks.items() if plan.function is pgd and plan.threat is None]
        chosen = [name for name in named if name == "pgd-20"] or named[:1]
        return Suite(self.name, {name: self.attacks[name] for name in chosen}, (), self.images, self.batch_size)


def plan_attack(raw: Mapping[str, Any], where: str) -> Planned:
    """One attack out of `{attack: name, setting: value, ...}`, which stands at `where` in params.yaml.

    Raises:
        TurncoatError: unknown attack or setting, a setting that is missing or that the attack refuses.
    """
    settings = dict(raw)
    name = settings.pop("attack", None)
    if name == "transfer":
        stored = settings.pop("stored", None)
        if settings or not isinstance(stored, str):
            raise TurncoatError(f"params.yaml: {where}: a transfer attack takes `stored`, a name under perturbations")
        return Planned(None, stored=stored)
    check_name(str(name), ["transfer", *ATTACKS], f"params.yaml: {where}.attack")
    entry = {key: settings.pop(key) for key in OF_THE_ENTRY if key in settings}
    attack = cast(Attack, ATTACKS[name])  # functions of unlike keywords
    _check_keys(attack, settings, where)
    planned = Planned(attack, settings, **_checked(entry, where))
    if planned.spatial and planned.threat:
        raise TurncoatError(f"params.yaml: {where}.threat: {name} moves pixels, no norm bounds it; leave it out")
    if planned.settings.get("compile") and (planned.draws or planned.fixed):
        raise TurncoatError(f"params.yaml: {where}.compile: not with eot or fixed, whose passes differ; leave one out")
    if planned.targeted and "targets" not in inspect.signature(attack).parameters:
        able = ", ".join(
            key for key, known in ATTACKS.items() if "targets" in inspect.signature(cast(Attack, known)).parameters
        )
        raise TurncoatError(f"params.yaml: {where}.targeted: {name} takes no target class; {able} do")
    if "average" in entry and not planned.draws:
        raise TurncoatError(f"params.yaml: {where}.average: of what? It goes with eot only; leave it out")
    if planned.doublings and not (planned.eot and type(planned.settings.get("steps")) is int):
        raise TurncoatError(
            f"params.yaml: {where}.doublings: of steps and draws: it goes with steps and eot; leave it out"
        )
    if "among" in entry and (planned.threat or planned.spatial):
        raise TurncoatError(f"params.yaml: {where}.among: standing under another threat than this one; leave it out")
    if planned.alone and (planned.draws or planned.fixed or planned.bpda):
        raise TurncoatError(f"params.yaml: {where}.alone: not with eot, fixed or bpda: the purifier is not seen at all")
    try:
        _try(planned)
    except (ValueError, TypeError) as error:
        raise TurncoatError(f"params.yaml: {where}: {error}") from error
    return planned


def build_suite(name: str, settings: SuiteSettings) -> Suite:
    """The suite that params.yaml describes under `suites.<name>`.

    Raises:
        TurncoatError: as `plan_attack`, the name of a measurement, or a radius of the security curve not above 0.
    """
    for key in settings.attacks:
        if key in TAKEN or key.startswith((SECOND_LOOK, WORST_UNDER)):
            where = f"params.yaml: suites.{name}.attacks"
            raise TurncoatError(f"{where}: the name {key} is taken, for a measurement of every network; choose another")
    attacks = {key: plan_attack(raw, f"suites.{name}.attacks.{key}") for key, raw in settings.attacks.items()}
    if any(not 0 < factor < float("inf") for factor in settings.radii):
        raise TurncoatError(f"params.yaml: suites.{name}.radii: must be above 0, in units of epsilon")
    for kind, names, there in (
        ("shifts", settings.shifts, SHIFTS),
        ("corruptions", settings.corruptions, CORRUPTIONS),
        ("universal.form", [settings.universal["form"]] if settings.universal else [], UNIVERSAL),
    ):
        for given in names:
            check_name(str(given), there, f"params.yaml: suites.{name}.{kind}")
    if settings.universal:
        rest = {key: value for key, value in settings.universal.items() if key != "form"}
        _check_keys(UNIVERSAL[settings.universal["form"]], rest, f"suites.{name}.universal")
    return Suite(
        name,
        attacks,
        tuple(sorted(settings.radii)),
        settings.images,
        settings.batch_size,
        tuple(settings.shifts),
        tuple(settings.corruptions),
        tuple(settings.severities),
        settings.universal,
        settings.audit,
    )


def plan_suite(name: str, attacks: Mapping[str, Mapping[str, Any]], **more: Any) -> Suite:
    """A suite out of attacks alone, as params.yaml writes them; `more` as for `SuiteSettings`, but without an audit."""
    given = {"attacks": dict(attacks), "audit": 0, **more}
    return build_suite(name, validate(SuiteSettings, given, f"suites.{name}", "suite"))


def check_name(name: str, names: Iterable[str], where: str) -> None:
    """Refuse a name that does not stand for anything; the nearest one is named, and all that there are."""
    names = list(names)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}? There are" if near else "there are"
        raise TurncoatError(f"{where}: {name!r} is not defined; {hint} {', '.join(names)}")


def _check_keys(attack: Attack, settings: Mapping[str, Any], where: str) -> None:
    parameters = inspect.signature(attack).parameters.values()
    known = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in GIVEN}
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, [*known, *OF_THE_ENTRY], n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join([*known, *OF_THE_ENTRY])}"
            if key in SHARES and SHARES[key].split()[0] in known:
                hint = f"it is called {SHARES[key]}"
            raise TurncoatError(f"params.yaml: unknown {where}.{key}; {hint}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in settings:
            raise TurncoatError(f"params.yaml: {where}.{key} is missing")


def _checked(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    checked = dict(entry)
    if "threat" in entry:
        given = validate(ThreatSettings, entry["threat"], f"{where}.threat")
        checked["threat"] = Threat(given.norm, given.epsilon)
    if "eot" in entry and (type(entry["eot"]) is not int or entry["eot"] < 1):
        raise TurncoatError(f"params.yaml: {where}.eot: a number of passes, at least 1, wanted (got {entry['eot']!r})")
    doublings = entry.get("doublings", 0)
    if type(doublings) is not int or not 0 <= doublings <= MOST:
        raise TurncoatError(f"params.yaml: {where}.doublings: a number from 0 to {MOST} wanted (got {doublings!r})")
    for key in ("fixed", "bpda", "alone", "deterministic", "stepwise"):
        if key in entry and entry[key] is not True:
            raise TurncoatError(f"params.yaml: {where}.{key}: true, or leave it out (got {entry[key]!r})")
    if "average" in entry:
        check_name(str(entry["average"]), AVERAGES, f"params.yaml: {where}.average")
    if "among" in entry:
        check_name(str(entry["among"]), AMONG, f"params.yaml: {where}.among")
    if "targeted" in entry:
        check_name(str(entry["targeted"]), TARGETED, f"params.yaml: {where}.targeted")
    if "precision" in entry:
        check_name(str(entry["precision"]), PRECISIONS, f"params.yaml: {where}.precision")
    return checked


class _Fallen(nn.Module):
    """Takes every image for one of class 1, so that an attack on class 0 is done at its first look."""

    def forward(self, images: Tensor) -> Tensor:
        first = images.flatten(1).mean(1, keepdim=True)
        return torch.cat([0 * first, 1 + first, 0 * first, 0 * first], 1)


def _try(planned: Planned) -> None:
    """Let the attack itself judge its settings, on one small image that has fallen already."""
    compiles = planned.settings.get("compile", False)
    if type(compiles) is not bool:
        raise ValueError(f"compile: true or false wanted (got {compiles!r})")
    if compiles:  # which a try is not worth
        planned = replace(planned, settings={**planned.settings, "compile": False})
    image, label = torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, dtype=torch.int64)
    planned(_Fallen(), image, label, planned.threat or Threat("linf", 0.1), torch.Generator().manual_seed(0))
