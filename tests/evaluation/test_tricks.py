"""No trick leaves a worst case over three points above the true one without a flag that blocks."""

import copy
import importlib

import pytest
import torch
from torch import Tensor, nn

from tests.evaluation import broken, tricks
from tests.evaluation.conftest import THREAT
from turncoat.evaluation import Evaluation, evaluate

SUITE = {"pgd-20": {"attack": "pgd", "steps": 20}, "dlr": {"attack": "pgd", "steps": 20, "loss": "dlr"}}
STATEFUL = [
    (tricks.Memory, "stateful"),
    (tricks.CachedByShape, "stateful"),
    (tricks.Counting, "stateful"),
    (tricks.InPlaceWeights, "stateful"),
    (tricks.RepeatedQueries, "stateful"),
    (tricks.Clock, "unsteady"),
    (tricks.HookedGradient, "false-gradient"),
    (tricks.NoiseGradient, "false-gradient"),
    (tricks.GradientBranch, "stateful"),
    (tricks.GradMode, "stateful"),
    (tricks.ParameterBranch, "stateful"),
    (tricks.Seeds, "told-apart"),
    (tricks.RandomSeeds, "told-apart"),
    (tricks.BatchStatistics, "batch-dependent"),
    (tricks.NoisyBatchStatistics, "batch-dependent"),
]
MASKED = [
    tricks.HookedGradient,
    tricks.NoiseGradient,
    tricks.ZeroHook,
    tricks.Temperature,
    tricks.Cold,
    tricks.RoundedLogits,
    broken.Rounded,
    broken.NanGradients,
    broken.Softmax,
]


def blocking(result: Evaluation) -> set[str]:
    return {flag.name for flag in result.flags if flag.blocks and flag.attack is None}


@pytest.mark.parametrize(("trick", "flag"), STATEFUL, ids=lambda case: getattr(case, "__name__", case))
@pytest.mark.fault(32, "memory, caches, counters, clocks, company", "verdicts by pristine copies, flagged, blocked")
def test_a_network_with_a_past_is_flagged(
    trick: type[nn.Module], flag: str, network: nn.Module, images: Tensor, labels: Tensor, monkeypatch
) -> None:
    made = trick(network).eval()
    if trick is tricks.Clock:  # it turns while it is attacked
        monkeypatch.setattr(tricks.Clock, "late", False)
        module = importlib.import_module("turncoat.evaluation.evaluate")  # the package's name is the function
        monkeypatch.setattr(module, "scenes", lambda *_: setattr(tricks.Clock, "late", True))
    result = evaluate(made, images, labels, THREAT, SUITE, checks=False)
    assert flag in blocking(result)


@pytest.mark.parametrize(
    "trick", [tricks.Memory, tricks.CachedByShape, tricks.Counting, tricks.CountingLong, tricks.RepeatedQueries]
)
def test_a_network_with_a_past_is_attacked_as_if_it_had_none(
    trick: type[nn.Module], network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    true = evaluate(network, images, labels, THREAT, SUITE, checks=False).worst
    result = evaluate(trick(network).eval(), images, labels, THREAT, SUITE, checks=False)
    assert result.worst.mean() <= true.mean() + 0.03


@pytest.mark.parametrize("trick", MASKED, ids=lambda trick: trick.__name__)
def test_no_masked_gradient_leaves_more_than_is_there_without_a_flag(
    trick: type[nn.Module], network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    images, labels = images[:60], labels[:60]
    true = evaluate(network, images, labels, THREAT, SUITE, checks=False).worst
    result = evaluate(trick(network).eval(), images, labels, THREAT, SUITE)
    assert result.worst.mean() <= true.mean() + 0.03 or blocking(result)


def test_an_honest_network_is_left_as_it_was_and_never_run(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """The caller's memory stays empty: copies have seen the images, and verdicts come of copies that saw nothing."""
    made = tricks.Memory(copy.deepcopy(network)).train()
    evaluate(made, images[:50], labels[:50], THREAT, SUITE, checks=False)
    assert made.training
    assert made.seen == []
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), network.parameters(), strict=True))
