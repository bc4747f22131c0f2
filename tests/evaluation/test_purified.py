"""What AToP's figures are made of: the attack step by step, images on their way through, both repeatable."""

import pytest
import torch
from torch import Tensor, nn

from turncoat import models
from turncoat.attacks import Threat, eot, pgd
from turncoat.evaluation.purified import STEP, by_steps, on_the_way, right_draws
from turncoat.evaluation.results import DRAWS
from turncoat.models.purifier import Pipeline, Purifier
from turncoat.models.transforms import Transform
from turncoat.randomness import generator

THREAT = Threat("linf", 0.15)


def pipeline(network: nn.Module, transform: str) -> Pipeline:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        purifier = Purifier("unet", [1, 8, 8], 2)
    classifier = models.Classifier("small_cnn", 10, [1, 8, 8], [0.3], [0.4])
    classifier.forward = network.forward  # type: ignore[method-assign]
    return Pipeline(Transform(transform, noise=0.1), purifier, classifier).eval()


def test_steps_are_those_of_pgd_and_take_accuracy_away(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    net, few, theirs = pipeline(network, "rt2"), images[:40], labels[:40]
    found = by_steps(net, few, theirs, THREAT, draws=2, looks=[0, 3, 10], seed=1)
    assert found.shape == (3, 40)
    assert found.max() <= DRAWS
    assert found[0].mean() > found[1].mean() > found[2].mean()
    source = generator(1, "by steps", 2)
    attacked = pgd(eot(net, 2), few, theirs, THREAT, steps=10, step=STEP, generator=source)
    assert (found[2] == right_draws(net, attacked, theirs, 1)).all()
    state = torch.get_rng_state()
    assert (by_steps(net, few, theirs, THREAT, draws=2, looks=[0, 3, 10], seed=1) == found).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_scores_hang_on_the_image_and_the_seed(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    net = pipeline(network, "rt2")
    whole = right_draws(net, images[:60], labels[:60], 0)
    assert (right_draws(net, images[:20], labels[:20], 0) == whole[:20]).all()
    assert (right_draws(net, images[:60], labels[:60], 1) != whole).any()


@pytest.mark.parametrize("transform", ["none", "rt1", "rt2", "rt3"])
def test_the_transformed_image_is_what_the_purifier_saw(transform: str, network: nn.Module, images: Tensor) -> None:
    net, few = pipeline(network, transform), images[:5]
    way = on_the_way(net, few, 0)
    assert {name: tuple(value.shape) for name, value in way.items()} == {
        "transformed": (5, 1, 8, 8), "purified": (5, 1, 8, 8), "answers": (5,),
    }  # fmt: skip
    assert torch.equal(on_the_way(net, few, 0)["purified"], way["purified"])
    changed = (way["transformed"] != few).flatten(1).sum(1)
    assert {"none": int(changed.max()) == 0, "rt1": int(changed.max()) <= 16}.get(transform, int(changed.min()) > 16)
    if transform == "rt1":
        seen = way["transformed"] == few
        assert torch.equal(way["transformed"][~seen], torch.full_like(few, 0.5)[~seen])
