"""PGD's step compiled: the same as uncompiled, or one message. Slow: a compiler is at work."""

import pytest
import torch
from torch import Tensor, nn

from turncoat.attacks import Counter, Threat, kl, pgd
from turncoat.attacks.compiled import compiled_step
from turncoat.attacks.losses import objective
from turncoat.attacks.pgd import plain_step
from turncoat.errors import TurncoatError
from turncoat.evaluation.suite import plan_attack
from turncoat.models.classifiers import Classifier

from .nets import pictures, predicted, seeded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
THREATS = [Threat("linf", 0.1), Threat("l2", 0.5), Threat("l1", 2.0)]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    model = Classifier("small_cnn", 10, (1, 8, 8), [0.5], [0.3])
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.2, 0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_compiled_step_is_the_plain_one(threat: Threat, network: nn.Module) -> None:
    for loss, count in (("ce", 12), ("dlr", 12), ("ce", 5)):
        images, x = pictures(count, 8), pictures(count, 8, seed=2)
        x, labels = threat.project(x, images), torch.arange(count) % 10
        given = (threat.projection(images), objective(loss), labels, None, None, threat, 0.25 * threat.epsilon)
        with torch.no_grad():
            (ahead, losses, logits), mine = plain_step(network, x, *given), compiled_step(network, x, *given)
        assert (logits - mine[2]).abs().max() < 1e-5
        assert (losses - mine[1]).abs().max() < 1e-5
        # where a gradient is almost 0, its sign is decided by rounding
        assert ((ahead - mine[0]).abs() < 1e-5).float().mean() > 0.999


def test_a_compiled_attack_finds_the_same_and_counts_the_same(network: nn.Module) -> None:
    images, threat = pictures(40, 8), Threat("linf", 0.02)
    labels = predicted(network, images)
    clean = network(images).log_softmax(1)
    for settings in ({}, {"early_stop": True, "restarts": 2}, {"loss": kl(clean)}):
        found, passes = [], []
        for compiles in (False, True):
            counter = Counter(network)
            settings |= {"steps": 8, "relative_step": 0.25, "generator": seeded(), "compile": compiles}
            found.append(pgd(counter, images, labels, threat, **settings))
            passes.append((counter.forwards, counter.backwards))
            assert (threat.distance(found[-1], images) <= threat.epsilon + 1e-6).all()
        assert passes[0] == passes[1]
        assert 0 < int((predicted(network, found[0]) != labels).sum()) < 40
        assert torch.equal(predicted(network, found[0]), predicted(network, found[1]))
        assert ((found[0] - found[1]).abs().amax((1, 2, 3)) < 1e-5).float().mean() >= 0.95


def test_reduced_precision_reaches_into_a_compiled_step(network: nn.Module) -> None:
    images, threat = pictures(40, 8), Threat("linf", 0.02)
    labels = predicted(network, images)
    run = {"steps": 8, "early_stop": True, "compile": True}
    exact = pgd(network, images, labels, threat, generator=seeded(), **run)
    with torch.autocast("cpu", torch.bfloat16):
        rough = pgd(network, images, labels, threat, generator=seeded(), **run)
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    fell = [int((predicted(network, found) != labels).sum()) for found in (exact, rough)]
    assert abs(fell[0] - fell[1]) <= 2


class Choice(nn.Module):
    """Control flow that hangs on values."""

    def forward(self, images: Tensor) -> Tensor:
        logits = images.flatten(1)[:, :4]
        return logits if images.sum() > 0 else -logits


def test_what_cannot_be_compiled_is_said_in_one_line(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(TurncoatError, match=r"compile: .*C\+\+ compiler.*leave compile out") as refused:
        pgd(Choice(), pictures(3, 8), labels, THREATS[0], steps=1, generator=seeded(), compile=True)
    assert "\n" not in str(refused.value)
    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with pytest.raises(TurncoatError, match=r"compile: .*leave compile out"):
        pgd(network, pictures(3, 8), labels, THREATS[0], steps=1, generator=seeded(), compile=True)
    torch._dynamo.reset()


def test_draws_are_not_averaged_in_a_compiled_step() -> None:
    with pytest.raises(TurncoatError, match=r"suites\.s\.compile: not with eot or fixed"):
        plan_attack({"attack": "pgd", "steps": 3, "compile": True, "eot": 4}, "suites.s")
    with pytest.raises(TurncoatError, match=r"suites\.s: compile: true or false wanted"):
        plan_attack({"attack": "pgd", "steps": 3, "compile": "yes"}, "suites.s")
    assert plan_attack({"attack": "pgd", "steps": 3, "compile": True}, "suites.s").settings["compile"] is True
