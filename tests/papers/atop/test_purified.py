"""What AToP's figures are made of: the attack step by step, images on their way through, both repeatable."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from turncoat import models
from turncoat.attacks import Threat, eot, pgd
from turncoat.data.batches import DeviceSplit
from turncoat.evaluation.results import DRAWS
from turncoat.models.purifier import Pipeline, Purifier
from turncoat.models.transforms import Transform
from turncoat.papers.atop import analysis
from turncoat.papers.atop.purified import REST, STEP, by_steps, on_the_way, right_draws, taken_off
from turncoat.papers.material import Arm, Material
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
    attacked = pgd(eot(net, 2), few, theirs, THREAT, steps=10, relative_step=STEP, generator=source)
    assert (found[2] == right_draws(net, attacked, theirs, 1)).all()
    state = torch.get_rng_state()
    assert (by_steps(net, few, theirs, THREAT, draws=2, looks=[0, 3, 10], seed=1) == found).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_steps_go_on_doubling_while_they_take_accuracy_off(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    net, few, theirs = pipeline(network, "rt2"), images[:30], labels[:30]

    def run(looks: list[int], most: int) -> NDArray[np.int16]:
        return by_steps(net, few, theirs, THREAT, draws=2, looks=looks, seed=1, most=most)

    falling = run([0, 1, 2], 16)
    assert (falling == run([0, 1, 2, 4, 8, 16], 0)[: len(falling)]).all()
    assert all(taken_off(*falling[at : at + 2]) > REST for at in range(1, len(falling) - 2))
    assert len(falling) == 6 or taken_off(*falling[-2:]) <= REST
    assert len(falling) > 3
    assert len(run([0, 1, 2], 3)) == 3  # the next would be 4
    # where there is nothing to gain the looks asked for are all
    still = by_steps(net, few, theirs, Threat("linf", 1e-6), draws=2, looks=[0, 1, 2], seed=1, most=64)
    assert len(still) == 3


def test_runs_of_unequal_length_stand_side_by_side(
    network: nn.Module, images: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an attack no longer took is -1, and the arm's steps are as many as its longest run has."""
    for name, value in {"ON_STEPS": 20, "LOOKS": (0, 1, 2), "MOST_STEPS": 8, "EOT": (1, 2)}.items():
        monkeypatch.setattr(analysis, name, value)
    lengths = iter((3, 5))
    plain = by_steps

    def run(*given: Any, **settings: Any) -> NDArray[np.int16]:
        looks = [0, 1, 2, 4, 8][: next(lengths)]
        return plain(*given, **settings | {"looks": looks, "most": 0})

    monkeypatch.setattr(analysis, "by_steps", run)
    split = DeviceSplit((images * 255).round().to(torch.uint8), labels)
    arm = Arm({"method": "atop"}, lambda: pipeline(network, "rt2"))
    material = Material({"atop": arm}, network, split, split, 10, THREAT, 0, images, {}, {})
    told, arrays = analysis.analyse(material)
    assert told["arms"]["atop"] == {"draws": [1, 2], "steps": [0, 1, 2, 4, 8]}
    right = arrays["right-atop"]
    assert right.shape == (2, 5, 20)
    assert (right[0, 3:] == -1).all()
    assert right[1].min() >= 0


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
