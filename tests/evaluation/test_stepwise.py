"""Networks whose answers move in steps: gradients mislead there, and random search joins the suite."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.evaluation.conftest import THREAT
from turncoat.errors import TurncoatError
from turncoat.evaluation import evaluate, probes
from turncoat.evaluation.journal import Journal
from turncoat.evaluation.runner import Runner
from turncoat.evaluation.suite import plan_attack
from turncoat.models import Classifier
from turncoat.models.quantised import quantise

SQUARE = {"attack": "square", "queries": 300, "among": "standing", "stepwise": True}


class Rounded(nn.Module):
    """Pixels black or white, some of a digit halfway between; the gradient passes as if they were not."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        stepped = images + (torch.round(images) - images).detach()
        logits: Tensor = self.network(stepped)
        return logits


def runner(model: nn.Module, images: Tensor, labels: Tensor) -> Runner:
    return Runner(model, images, labels, seed=0, batch_size=100, journal=Journal())


def test_rounding_is_noticed_and_a_smooth_network_is_not(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    assert probes.stepwise(runner(Rounded(network), images, labels))
    assert not probes.stepwise(runner(network, images, labels))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_quantised_network_is_noticed(bits: int, images: Tensor, labels: Tensor) -> None:
    torch.manual_seed(0)
    net = Classifier("small_cnn", 10, (1, 8, 8), [0.3], [0.4]).eval()
    assert not probes.stepwise(runner(copy.deepcopy(net), images, labels))
    assert probes.stepwise(runner(quantise(net, bits, bits, images), images, labels))


def test_random_search_meets_what_moves_in_steps_and_finds_more(
    network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    suite = {"pgd": {"attack": "pgd", "steps": 20}, "square": SQUARE}
    smooth = evaluate(network, images, labels, THREAT, suite, checks=False)
    assert list(smooth.correct) == ["pgd"]
    stepped = evaluate(Rounded(network), images, labels, THREAT, suite, checks=False)
    assert list(stepped.correct) == ["pgd", "square"]
    assert np.sum(stepped.correct["pgd"]) - np.sum(stepped.worst) >= 5  # of 200


def test_the_key_takes_true_alone() -> None:
    with pytest.raises(TurncoatError, match="stepwise: true, or leave it out"):
        plan_attack(SQUARE | {"stepwise": "yes"}, "suites.mine.attacks.square")
