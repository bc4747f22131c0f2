"""Suites out of params.yaml: what is refused, before anything runs, and with which words."""

from typing import Any

import pytest
import torch

from tests.defaults import DEFAULTS
from turncoat.attacks import Threat, pgd
from turncoat.errors import TurncoatError
from turncoat.evaluation import Suite, build_suite, evaluate
from turncoat.evaluation.results import BLACK_BOX, ITERATIVE, ONE_STEP
from turncoat.evaluation.suite import plan_attack
from turncoat.randomness import generator
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
        ({"attack": "pgd", "steps": 5, "xyz": 1}, "unknown suites.s.xyz; known are steps, relative_step"),
        (
            {"attack": "pgd", "steps": 5, "step": 0.1},
            "unknown suites.s.step; it is called relative_step now, in units of",
        ),
        ({"attack": "pgd"}, "suites.s.steps is missing"),
        ({"attack": "pgd", "steps": 0}, "suites.s: steps: 0 is not allowed; give a whole number of at least 1"),
        ({"attack": "pgd", "steps": "ten"}, "suites.s: steps: 'ten' is not allowed"),
        ({"attack": "pgd", "steps": 5, "relative_step": -1}, "suites.s: relative_step: -1 is not allowed"),
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
        ({"attack": "pgd", "steps": 2, "eot": 2, "average": "votes"}, "suites.s.average: 'votes' is not defined"),
        ({"attack": "pgd", "steps": 2, "average": "logits"}, "suites.s.average: of what? It goes with eot only"),
        ({"attack": "pgd", "steps": 2, "alone": 1}, "suites.s.alone: true, or leave it out"),
        ({"attack": "pgd", "steps": 2, "alone": True, "eot": 2}, "suites.s.alone: not with eot, fixed or bpda"),
        ({"attack": "pgd", "steps": 2, "doublings": 2}, "suites.s.doublings: of steps and draws: it goes with steps"),
        ({"attack": "fgsm", "eot": 2, "doublings": 2}, "suites.s.doublings: of steps and draws: it goes with steps"),
        ({"attack": "pgd", "steps": 2, "eot": 2, "doublings": -1}, "suites.s.doublings: a number from 0 to 12 wanted"),
        ({"attack": "pgd", "steps": 2, "eot": 2, "doublings": True}, "suites.s.doublings: a number from 0 to 12"),
        ({"attack": "fgsm", "among": "fallen"}, "suites.s.among: 'fallen' is not defined; there are clean, standing"),
        ({"attack": "stadv", "among": "standing"}, "suites.s.among: standing under another threat"),
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
        ({"radii": [0.5, 0.0]}, "suites.mine.radii"),
        ({"attacks": {"worst-l2": {"attack": "fgsm"}}}, "the name worst-l2 is taken"),
        ({"attacks": {"worst": {"attack": "fgsm"}}}, "suites.mine.attacks: the name worst is taken"),
        ({"attacks": {"second-look-x": {"attack": "fgsm"}}}, "the name second-look-x is taken"),
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
    settings = load(DEFAULTS)
    suites = {name: build_suite(name, given) for name, given in settings.suites.items()}
    assert {"quick", "standard", "full"} <= suites.keys()
    stored = {plan.stored for made in suites.values() for plan in made.attacks.values() if plan.stored}
    assert stored <= settings.perturbations.keys()
    assert "pgd-20" in suites["quick"].attacks
    assert all(any(plan.kind == ITERATIVE and not plan.threat for plan in s.attacks.values()) for s in suites.values())


def test_what_a_suite_runs_on_random_networks_averages_its_draws() -> None:
    """Unseen threats too: an attack that is blind to the draws says little of a random network."""
    made = build_suite("full", load(DEFAULTS).suites["full"])
    whole = torch.nn.Module()
    for random in (True, False):
        met = {name: plan for name, plan in made.attacks.items() if plan.meets(whole, random)}
        unseen = {name: plan for name, plan in met.items() if plan.threat or plan.spatial}
        assert all(bool(plan.draws) is random for plan in unseen.values())
        assert {plan.threat.norm for plan in unseen.values() if plan.threat} == {"linf", "l2", "l1"}
        assert sum(plan.spatial for plan in unseen.values()) == 2
    assert build_suite("standard", load(DEFAULTS).suites["standard"]).batch_size == made.batch_size == "auto"


class Half(torch.nn.Module):
    """A purifier that halves what it is given, before a classifier: linear, so that a change of either is plain."""

    def __init__(self, strength: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        self.strength, self.seen = strength, 0

    def purify(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return images / 2 + self.strength * torch.randn_like(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.purify(images))
        return logits


@pytest.mark.parametrize("strength", [0.0, 0.05])
def test_an_attack_on_the_classifier_alone_is_scored_by_the_whole(strength: float) -> None:
    plan, threat = plan_attack({"attack": "pgd", "steps": 3, "alone": True}, "suites.s"), Threat("linf", 0.05)
    net = Half(strength).eval()
    assert plan.kind == BLACK_BOX
    assert plan.meets(net, True)
    assert plan.meets(net, False)
    assert not plan.meets(net.classifier, False)
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = net(images).argmax(1)
    network, counter = plan.seen(net, 0, 50)
    net.seen = 0
    made = plan(network, images, labels, threat, torch.Generator().manual_seed(1))
    source = torch.Generator().manual_seed(1)
    assert torch.equal(made, pgd(net.classifier, images, labels, threat, steps=3, generator=source, early_stop=True))
    assert net.seen == 0  # the purifier has not been looked at
    assert counter.forwards > 0
    suite = {"alone": {"attack": "pgd", "steps": 3, "alone": True}}
    result = evaluate(net, images, labels, threat, suite, checks=False)
    assert list(result.correct) == ["alone"]
    if not strength:
        source = generator(0, "alone", 0, 0)  # the runner's: of seed, attack, batch
        right = result.clean
        made = pgd(net.classifier, images[right], labels[right], threat, steps=3, generator=source)
        with torch.no_grad():
            stood = (net(made).argmax(1) == labels[right]).numpy()
        assert result.correct["alone"][right].tolist() == stood.tolist()


@pytest.mark.parametrize(("room", "together"), [(40, 10), (4, 1), (3, 3)])
def test_draws_that_do_not_fit_come_one_after_the_other(room: int, together: int) -> None:
    """What goes through the network at a time is never more than fits; the draws are the same attack either way."""
    plan = plan_attack({"attack": "pgd", "steps": 2, "eot": 4}, "suites.s")
    net, threat = Half(0.05).eval(), Threat("linf", 0.05)
    assert plan.together(room) == together
    most = []
    net.register_forward_pre_hook(lambda module, inputs: most.append(len(inputs[0])))
    network, _ = plan.seen(net, 0, room)
    images = torch.rand(together, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(together, dtype=torch.int64)
    found = plan(network, images, labels, threat, torch.Generator().manual_seed(1))
    assert max(most) <= room
    assert threat_holds(found, images, threat)
    plain = plan_attack({"attack": "pgd", "steps": 2}, "suites.s")
    assert plain.together(room) == room


def threat_holds(found: torch.Tensor, images: torch.Tensor, threat: Threat) -> bool:
    return bool(((found - images).abs() <= threat.epsilon + 1e-6).all()) and bool((found != images).any())


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
