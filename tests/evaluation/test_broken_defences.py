"""Defences that are none: flags are raised, and the second look takes the robustness away or the verdict says so."""

import pytest
from torch import Tensor, nn

from tests.evaluation import broken
from tests.evaluation.conftest import THREAT
from turncoat.evaluation import Evaluation, evaluate

ATTACKS = {
    "fgsm": {"attack": "fgsm"},
    "pgd-20": {"attack": "pgd", "steps": 20},
    "margin-20": {"attack": "pgd", "steps": 20, "loss": "margin"},
}
CE = {name: ATTACKS[name] for name in ("fgsm", "pgd-20")}


def names(result: Evaluation) -> set[str]:
    return {flag.name for flag in result.flags}


def unreliable(result: Evaluation) -> bool:
    """Whether the worst case itself is in doubt."""
    return any(flag.blocks and flag.attack is None for flag in result.flags)


def test_an_honest_network_raises_no_flag_and_costs_no_second_look(
    network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    result = evaluate(network, images, labels, THREAT, ATTACKS)
    assert result.flags == []
    assert list(result.correct) == ["fgsm", "pgd-20", "margin-20"]
    assert 0 < result.worst.mean() < 0.1
    assert result.overhead["forward"] < 5  # a few passes an image for clean accuracy and all checks together


@pytest.mark.parametrize(
    (
        "defence",
        "flag",
        "believed",
        "doubted",
    ),  # accuracy under the suite alone: looks robust; is the worst case trusted
    [
        (broken.DropoutLeftOn, "random-forward", 0.05, False),
        (broken.HugeLogits, "zero-gradient", 0.9, False),
        (broken.Rounded, "zero-gradient", 0.9, True),
        (broken.NanGradients, "nan-gradient", 0.9, True),
        (broken.Softmax, "softmax-output", 0.5, False),
    ],
)
def test_a_broken_defence_is_seen_through(
    defence: type[nn.Module],
    flag: str,
    believed: float,
    doubted: bool,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
) -> None:
    result = evaluate(defence(network), images, labels, THREAT, CE)
    assert flag in names(result)
    by_suite = result.correct["fgsm"] & result.correct["pgd-20"]
    assert by_suite.mean() > believed
    assert any(name.startswith("second-look-") for name in result.correct)
    assert result.worst.mean() < by_suite.mean()
    assert result.worst.mean() < 0.15 or unreliable(result)
    assert unreliable(result) or not doubted  # dead gradients are never called robust
    if by_suite.mean() - result.worst.mean() > 0.05:  # then the suite's own numbers are not to be believed
        assert any(found.attack == "pgd-20" and found.blocks for found in result.flags) or unreliable(result)


def test_a_random_network_gives_the_same_record_for_the_same_seed(
    network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    noisy = broken.NoisyLogits(network)
    suite = ATTACKS | {"apgd-eot": {"attack": "apgd", "steps": 5, "eot": 5}}
    first, second, other = (evaluate(noisy, images, labels, THREAT, suite, seed=seed) for seed in (3, 3, 4))
    assert {flag.name: flag.blocks for flag in first.flags} == {"random-forward": False}  # EOT has met it
    assert set(first.correct) == {"fgsm", "pgd-20", "margin-20", "apgd-eot"}
    assert all((first.correct[name] == second.correct[name]).all() for name in first.correct)
    assert first.confidence.tobytes() == second.confidence.tobytes()
    assert first.confidence.tobytes() != other.confidence.tobytes()


def test_eot_meets_random_networks_only(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    suite = ATTACKS | {
        "eot": {"attack": "pgd", "steps": 2, "eot": 2},
        "fixed": {"attack": "pgd", "steps": 2, "fixed": True},
        "rand": {"attack": "autoattack", "version": "rand"},
        "bpda": {"attack": "pgd", "steps": 2, "bpda": True},
    }
    assert list(evaluate(network, images, labels, THREAT, suite, checks=False).correct) == list(ATTACKS)


def test_a_weak_suite_is_told_by_a_linear_classifier(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    weak = {"pgd": {"attack": "pgd", "steps": 1, "step": 0.01, "start": "none"}}
    result = evaluate(network, images, labels, THREAT, weak)
    assert "closed-form" in names(result)
    assert result.worst.mean() < 0.1 < 0.8 < result.correct["pgd"].mean()
    assert not unreliable(result)  # the second look is strong enough
    assert any(flag.attack is None and "settled" in flag.detail for flag in result.flags)
