"""Suites out of params.yaml: what is refused, before anything runs, and with which words."""

from typing import Any

import pytest
import torch

from turncoat.attacks import Threat
from turncoat.errors import TurncoatError
from turncoat.evaluation import Suite, build_suite
from turncoat.evaluation.results import BLACK_BOX, ITERATIVE, ONE_STEP
from turncoat.evaluation.suite import plan_attack
from turncoat.settings import SuiteSettings, load, validate


def suite(**settings: Any) -> Suite:
    raw = {"attacks": {"fgsm": {"attack": "fgsm"}}} | settings
    return build_suite("mine", validate(SuiteSettings, raw, "suites.mine"))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"attack": "pdg", "steps": 5}, "suites.s.attack: 'pdg' is not defined; did you mean pgd? There are transfer"),
        ({"steps": 5}, "attack: 'None' is not defined; there are transfer"),
        ({"attack": "pgd", "restart": 5}, "unknown suites.s.restart; did you mean restarts?"),
        ({"attack": "pgd", "steps": 5, "xyz": 1}, "unknown suites.s.xyz; known are steps, step"),
        ({"attack": "pgd"}, "suites.s.steps is missing"),
        ({"attack": "pgd", "steps": 0}, "suites.s: steps: 0 is not allowed; give a whole number of at least 1"),
        ({"attack": "pgd", "steps": "ten"}, "suites.s: steps: 'ten' is not allowed"),
        ({"attack": "pgd", "steps": 5, "step": -1}, "suites.s: step: -1 is not allowed"),
        ({"attack": "pgd", "steps": 5, "loss": "cee"}, "suites.s: loss: 'cee' is unknown; choose one of ce"),
        ({"attack": "pgd", "steps": 5, "start": "none", "restarts": 3}, "suites.s: restarts: more than one needs"),
        ({"attack": "square", "share": 2}, "suites.s: share"),
        ({"attack": "autoattack", "version": "best"}, "suites.s: version: 'best' is unknown"),
        ({"attack": "fgsm", "generator": 3}, "unknown suites.s.generator"),
        ({"attack": "fgsm", "threat": {"norm": "l3", "epsilon": 1.0}}, "suites.s.threat.norm"),
        ({"attack": "fgsm", "threat": {"norm": "l2", "epsilon": 0.0}}, "suites.s.threat.epsilon"),
        ({"attack": "fgsm", "threat": {"norm": "linf", "epsilon": 2.0}}, "epsilon must lie in (0, 1] for linf"),
        (
            {"attack": "fgsm", "threat": {"norm": "l2", "eps": 1.0}},
            "unknown suites.s.threat.eps; did you mean epsilon?",
        ),
        ({"attack": "stadv", "threat": {"norm": "l2", "epsilon": 1.0}}, "no norm bounds it"),
        ({"attack": "fgsm", "eot": 0}, "suites.s.eot: a number of passes, at least 1"),
        ({"attack": "fgsm", "eot": True}, "suites.s.eot: a number of passes, at least 1"),
        ({"attack": "fgsm", "fixed": "yes"}, "suites.s.fixed: true, or leave it out"),
        ({"attack": "transfer"}, "a transfer attack takes `stored`"),
        ({"attack": "transfer", "stored": "fgsm", "steps": 2}, "a transfer attack takes `stored`"),
    ],
)
def test_a_wrong_attack_is_refused_with_its_path(entry: dict[str, Any], says: str) -> None:
    with pytest.raises(TurncoatError) as refused:
        plan_attack(entry, "suites.s")
    assert says in str(refused.value)
    assert str(refused.value).startswith("params.yaml")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epsilons": [0.5, 0.0]}, "suites.mine.epsilons"),
        ({"shifts": ["blurr"]}, "suites.mine.shifts: 'blurr' is not defined; did you mean blur?"),
        ({"corruptions": ["smog"]}, "suites.mine.corruptions: 'smog' is not defined"),
        ({"severities": [6]}, "suites.mine.severities"),
        ({"universal": {"form": "pgd"}}, "suites.mine.universal.form: 'pgd' is not defined"),
        ({"universal": {"form": "sgd", "pases": 2}}, "unknown suites.mine.universal.pases; did you mean passes?"),
        ({"universal": {"passes": 2}}, "universal.form is missing"),
        ({"attack": {}}, "unknown suites.mine.attack; did you mean attacks?"),
    ],
)
def test_a_wrong_suite_is_refused_with_its_path(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(TurncoatError) as refused:
        suite(**settings)
    assert says in str(refused.value)


def test_every_suite_of_the_study_stands() -> None:
    settings = load("params.yaml")
    suites = {name: build_suite(name, given) for name, given in settings.suites.items()}
    assert {"quick", "standard", "full"} <= suites.keys()
    stored = {plan.stored for made in suites.values() for plan in made.attacks.values() if plan.stored}
    assert stored <= settings.perturbations.keys()
    assert "pgd-20" in suites["quick"].attacks
    assert all(any(plan.kind == ITERATIVE and not plan.threat for plan in s.attacks.values()) for s in suites.values())


def test_kinds_of_attack() -> None:
    def kind(**entry: Any) -> str:
        return plan_attack(entry, "suites.s").kind

    assert kind(attack="fgsm") == ONE_STEP
    assert kind(attack="pgd", steps=1) == ONE_STEP
    assert kind(attack="pgd", steps=2) == ITERATIVE
    assert kind(attack="autoattack") == ITERATIVE
    assert kind(attack="square") == BLACK_BOX
    assert kind(attack="transfer", stored="x") == BLACK_BOX


def test_trying_an_attacks_settings_costs_next_to_nothing() -> None:
    """Settings are tried on an image that has fallen: a suite of the dearest attacks is planned at once."""
    state = torch.get_rng_state()
    plan_attack({"attack": "autoattack", "version": "plus"}, "suites.s")
    plan_attack({"attack": "pgd", "steps": 10**6, "restarts": 1000}, "suites.s")
    plan_attack({"attack": "square", "queries": 10**6}, "suites.s")
    assert torch.equal(torch.get_rng_state(), state)


def test_the_last_weights_meet_one_pgd() -> None:
    named = suite(attacks={"a": {"attack": "pgd", "steps": 5}, "pgd-20": {"attack": "pgd", "steps": 20}})
    assert list(named.short().attacks) == ["pgd-20"]
    unnamed = suite(attacks={"fgsm": {"attack": "fgsm"}, "a": {"attack": "pgd", "steps": 5}})
    assert list(unnamed.short().attacks) == ["a"]
    assert suite().short().attacks == {}


def test_an_entry_may_have_a_threat_of_its_own() -> None:
    plan = plan_attack({"attack": "fgsm", "threat": {"norm": "l2", "epsilon": 0.5}}, "suites.s")
    assert plan.threat == Threat("l2", 0.5)
