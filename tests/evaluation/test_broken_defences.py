"""Defences that are none: flags are raised, and the second look takes the robustness away or the verdict says so."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.evaluation import broken
from tests.evaluation.conftest import THREAT
from turncoat.attacks import Threat
from turncoat.evaluation import Evaluation, evaluate, plan_suite
from turncoat.evaluation.results import Outcome

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
    assert result.overhead["forward"] < 6  # a few passes an image for clean accuracy and all checks together


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
@pytest.mark.fault(
    9,
    "gradients masked, NaN, rounded away; outputs softmaxed",
    "flagged, verdicts blocked, the suite sees through where it can",
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
    by_suite = result.outcome(["fgsm", "pgd-20"]).right
    assert by_suite.mean() > believed
    assert any(name.startswith("second-look-") for name in result.correct)
    jitter = 0.05 if result.harm else 0.0  # one draw a verdict, 200 images
    assert result.worst.mean() < by_suite.mean() + jitter
    assert result.worst.mean() < 0.15 + jitter or unreliable(result)
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


class Jittered(nn.Module):
    """Noise on one of two linear logits: the sign of the gradient hangs on no draw, verdicts do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor, *, seeds: Sequence[int] | None = None) -> Tensor:
        if seeds is None:
            noise = torch.randn(len(images), 1)
        else:
            noise = torch.stack([torch.randn(1, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        return self.head(images.flatten(1) - 0.5) + torch.cat([noise, 0 * noise], 1)


def test_verdicts_by_image_hang_on_no_batch(images: Tensor) -> None:
    network = Jittered().eval()
    labels = network.head(images.flatten(1) - 0.5).argmax(1)
    attacks = {
        "pgd": {"attack": "pgd", "steps": 3, "start": "none"},
        "eot": {"attack": "pgd", "steps": 2, "start": "none", "eot": 3},
        "moved": {"attack": "transfer", "stored": "moved"},
    }
    stored = {"moved": (images + 0.02).clamp(0, 1)}
    results = [
        evaluate(
            network, images, labels, Threat("linf", 0.02), plan_suite("s", attacks, batch_size=size, shifts=["blur"]),
            stored=stored, checks=False,
        )
        for size in (200, 64, 7)
    ]  # fmt: skip
    whole = results[0]
    assert 0 < whole.worst.sum() < whole.clean.sum() < len(labels)
    for other in results[1:]:
        assert (other.prediction == whole.prediction).all()
        assert (other.worst == whole.worst).all()
        assert other.shifts == whole.shifts
        for name in attacks:
            assert (other.correct[name] == whole.correct[name]).all()
            assert np.allclose(other.harm[name], whole.harm[name], atol=1e-5)


def test_many_harmless_attacks_do_not_bring_a_random_network_down(images: Tensor) -> None:
    """Each image is asked thirty times and errs now and then; the worst case is not the worst of thirty throws."""

    class Restless(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            mean = images.flatten(1).mean(1)
            right = (1e4 * mean + torch.rand(len(images))) % 1 < 0.8
            return torch.stack([right + 0 * mean, ~right + 0 * mean], 1)

    labels = torch.zeros(len(images), dtype=torch.int64)
    attacks = {f"a{k}": {"attack": "fgsm", "start": "uniform"} for k in range(30)}
    result = evaluate(Restless(), images, labels, THREAT, attacks, checks=False)
    every = np.logical_and.reduce([result.correct[name] for name in attacks])
    assert every.mean() < 0.3
    mean = np.mean([result.correct[name].mean() for name in attacks])
    assert result.worst.mean() == pytest.approx(mean, abs=0.1)


def test_what_harms_most_over_other_draws_decides() -> None:
    clean = np.array([True, True, True, False])
    before = Outcome.of(clean, True)
    weak = Outcome(np.array([False, True, True, False]), np.array([0.2, 0.4, 0.1, -1]))
    strong = Outcome(np.array([True, False, True, False]), np.array([0.6, 0.4, 1.0, -1]))
    both = before.worse(weak).worse(strong)
    assert both.right.tolist() == [True, True, True, False]  # the first of equals
    assert both.harm is not None
    assert both.harm.tolist() == [0.6, 0.4, 1.0, 1.0]
    assert both.open.tolist() == [True, True, False, False]
    assert Outcome(clean).worse(Outcome(~clean)).right.tolist() == [False] * 4


def test_eot_meets_random_networks_only(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    suite = ATTACKS | {
        "eot": {"attack": "pgd", "steps": 2, "eot": 2},
        "fixed": {"attack": "pgd", "steps": 2, "fixed": True},
        "rand": {"attack": "autoattack", "version": "rand"},
        "bpda": {"attack": "pgd", "steps": 2, "bpda": True},
    }
    still = {name: entry | {"deterministic": True} for name, entry in ATTACKS.items()}
    noisy = evaluate(
        broken.NoisyLogits(network),
        images,
        labels,
        THREAT,
        still | {name: suite[name] for name in ("eot", "fixed", "rand", "bpda")},
        checks=False,
    )
    assert list(noisy.correct) == ["eot", "fixed", "rand"]
    assert list(evaluate(network, images, labels, THREAT, suite, checks=False).correct) == list(ATTACKS)


@pytest.mark.fault(13, "a suite that is too weak, against a closed-form optimum", "told by the gap")
def test_a_weak_suite_is_told_by_a_linear_classifier(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    weak = {"pgd": {"attack": "pgd", "steps": 1, "relative_step": 0.01, "start": "none"}}
    result = evaluate(network, images, labels, THREAT, weak)
    assert "closed-form" in names(result)
    assert result.worst.mean() < 0.1 < 0.8 < result.correct["pgd"].mean()
    assert not unreliable(result)  # the second look is strong enough
    assert any(flag.attack is None and "settled" in flag.detail for flag in result.flags)


def test_attacks_of_the_second_look_go_through_the_logarithm_of_probabilities(
    network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    """The softmax of the suite's own attacks hides what the same steps on logits find."""
    suite = {"pgd-20": {"attack": "pgd", "steps": 20}}
    result = evaluate(broken.Softmax(network), images, labels, THREAT, suite)
    undone = evaluate(network, images, labels, THREAT, suite, checks=False)
    assert result.correct["pgd-20"].mean() > 0.5
    looked = result.outcome(["second-look-steps", "second-look-loss"])  # not Square, which needs no gradient
    assert looked.right.mean() < undone.worst.mean() + 0.05
