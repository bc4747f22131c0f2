"""Analyses on networks simple enough that the answer is known beforehand."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from tests.methods.small import CLASSES, TASK, images_of, network
from tests.papers.small import material
from turncoat.attacks import pgd
from turncoat.papers.advamd.analysis import analyse, judgement_surface, mismatch, vulnerability
from turncoat.randomness import generator


def transparent(features=8, classes=3):
    """Batch norm that changes nothing, then a linear layer: the features are the pixels."""
    norm = nn.BatchNorm2d(2, eps=1e-12).eval()
    return nn.Sequential(norm, nn.Flatten(), nn.Linear(features, classes))


def pictures(n, seed=0):
    return torch.rand(n, 2, 2, 2, generator=generator(seed, "pictures"))


def test_mismatch_of_shifted_and_stretched_images():
    images = pictures(50)
    moved = 1.5 * images + 0.2
    found = mismatch(transparent(), {"benign": images, "moved": moved}, batch_size=7)
    pixels = images.double().transpose(0, 1).flatten(1).numpy()
    mean, deviation = pixels.mean(1), pixels.std(1)
    shift = (1.5 * mean + 0.2 - mean) / deviation
    layer = found["layers"][0]
    assert (found["n"], found["reference"], found["groups"]) == (50, "benign", ["moved"])
    assert (layer["layer"], layer["channels"]) == ("0", 2)
    assert layer["moved"]["mean_shift"] == pytest.approx(np.abs(shift).mean(), abs=1e-5)
    assert layer["moved"]["log_variance"] == pytest.approx(2 * np.log(1.5), abs=1e-5)
    divergence = -np.log(1.5) + (1.5**2 + shift**2 - 1) / 2  # KL of two normal distributions
    assert layer["moved"]["divergence"] == pytest.approx(divergence.mean(), abs=1e-5)
    distance = (moved - images).flatten(1).norm(dim=1) / images.flatten(1).norm(dim=1)
    assert found["features"]["moved"]["distance"] == pytest.approx(distance.mean().item(), abs=1e-5)
    doubled = mismatch(transparent(), {"benign": images, "doubled": 2 * images})
    assert doubled["features"]["doubled"]["cosine"] == pytest.approx(0, abs=1e-5)


def test_mismatch_names_every_norm_and_leaves_the_network_alone():
    net = network(steps=2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    images = images_of(12)
    found = mismatch(net, {"benign": images, "same": images.clone(), "dark": 0.2 * images})
    assert [layer["layer"] for layer in found["layers"]] == ["network.1", "network.4", "network.7"]
    assert [layer["channels"] for layer in found["layers"]] == [16, 32, 64]
    for layer in found["layers"]:
        assert all(value == 0 for value in layer["same"].values())
        assert layer["dark"]["divergence"] > 0.01
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_pre_hooks for module in net.modules())
    json.dumps(found, allow_nan=False)


def test_mediate_images_mismatch_less_than_adversarial_ones():
    net = network(steps=8).eval()
    images = images_of(32)
    labels = net(images).argmax(1)
    attacked = pgd(net, images, labels, TASK.threat, steps=5, generator=generator("analysis"))
    found = mismatch(net, {"benign": images, "mediate": (images + attacked) / 2, "adversarial": attacked})
    features = found["features"]
    assert 0 < features["mediate"]["distance"] < features["adversarial"]["distance"]
    last = found["layers"][-1]
    assert 0 < last["mediate"]["divergence"] < last["adversarial"]["divergence"]


def test_mismatch_refuses_what_it_cannot_compare():
    images = pictures(4)
    with pytest.raises(ValueError, match="one size"):
        mismatch(transparent(), {"benign": images, "other": images[:2]})
    with pytest.raises(ValueError, match="two or more"):
        mismatch(transparent(), {"benign": images})
    with pytest.raises(ValueError, match="nothing to compare"):
        mismatch(nn.Sequential(nn.Flatten(), nn.Linear(8, 2)), {"a": images, "b": images})


def test_the_surface_of_a_network_written_out():
    net = transparent()
    images, labels = 0.4 + 0.2 * pictures(5), torch.tensor([0, 1, 2, 0, 1])
    adversarial = images + 0.05 * torch.randn(images.shape, generator=generator("direction"))
    surface = judgement_surface(net, images, labels, adversarial, generator("across"), size=5, shown=2, batch_size=3)
    assert surface["at"] == [-0.5, 0.0, 0.5, 1.0, 1.5]
    with torch.no_grad():
        for row, at in enumerate(surface["at"]):
            logits = net(images + at * (adversarial - images))
            assert surface["loss"][row][1] == pytest.approx(
                nn.functional.cross_entropy(logits, labels).item(), abs=1e-5
            )
            accuracy = (logits.argmax(1) == labels).float().mean().item()
            assert surface["accuracy"][row][1] == pytest.approx(accuracy, abs=1e-5)
            assert [shown["predicted"][row][1] for shown in surface["decisions"]] == logits.argmax(1)[:2].tolist()
    assert [shown["label"] for shown in surface["decisions"]] == [0, 1]
    json.dumps(surface, allow_nan=False)


def test_the_direction_across_is_orthogonal_and_of_the_same_length():
    met = []

    class Spy(nn.Module):
        def forward(self, images):
            met.append(images)
            return images.flatten(1)

    images = torch.full((3, 2, 2, 2), 0.5)
    adversarial = images + 0.03 * torch.randn(images.shape, generator=generator("direction"))
    judgement_surface(Spy(), images, torch.tensor([0, 1, 2]), adversarial, generator("across"), size=3, low=-1, high=1)
    along = (met[7] - met[4]).flatten(1)  # row by row: (0, 0) is the fifth point of nine
    across = (met[5] - met[4]).flatten(1)
    assert torch.equal(met[4], images)
    torch.testing.assert_close(met[7], adversarial)
    torch.testing.assert_close(along.norm(dim=1), across.norm(dim=1), rtol=1e-4, atol=0)
    assert (along * across).sum(1).abs().max() < 1e-5


def test_roughness_is_the_second_difference():
    class Bent(nn.Module):
        """A loss of z², with z the first pixel's distance from 1/2: its second derivative for z is 2."""

        def forward(self, images):
            squared = (images[:, 0, 0, 0] - 0.5).square()
            return torch.stack([torch.zeros_like(squared), torch.log(torch.expm1(squared.clamp_min(1e-9)))], 1)

    images = torch.full((1, 1, 2, 2), 0.5)
    adversarial = images.clone()
    adversarial[0, 0, 0, 0] = 0.7  # so one step of the surface is 0.2 pixels, and the second derivative 2 · 0.2²
    surface = judgement_surface(Bent(), images, torch.tensor([0]), adversarial, generator("a"), size=9)
    assert surface["roughness"] == pytest.approx(0.08, rel=1e-2)


def test_the_surface_draws_from_its_generator_only():
    net = network()
    images, labels = images_of(3), torch.tensor([0, 1, 2])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = judgement_surface(net, images, labels, images * 0.9, generator(5), size=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert first == judgement_surface(net, images, labels, images * 0.9, generator(5), size=3)
    assert first != judgement_surface(net, images, labels, images * 0.9, generator(6), size=3)


def test_vulnerability_is_the_probability_taken():
    net = network().eval()
    images, labels = images_of(6), torch.arange(6) % CLASSES
    attacked = 0.5 * images
    with torch.no_grad():
        p, q = net(images).double().softmax(1), net(attacked).double().softmax(1)
    expected = [min(max((p[i, y] - q[i, y]).item(), 0), 1) for i, y in enumerate(labels.tolist())]
    np.testing.assert_allclose(vulnerability(net, images, labels, attacked), expected, atol=1e-6)
    assert vulnerability(net, images, labels, images).max() == 0


def test_the_analysis_of_advamd_is_of_its_arms_and_their_comparators():
    plain, robust = network(seed=1).eval(), network(seed=2).eval()
    given = material(
        standard=({"method": "standard"}, plain),
        mart=({"method": "mart"}, plain),
        advamd=({"method": "advamd"}, robust),
    )
    told, arrays = analyse(given)
    assert list(told["mismatch"]) == list(told["surface"]) == ["standard", "advamd"]
    assert told["mismatch"]["advamd"]["groups"] == ["mediate", "adversarial"]
    assert arrays["vulnerability"].shape == (24,)
    assert arrays["loss-advamd"].shape == arrays["accuracy-advamd"].shape == (21, 21)
    assert not np.array_equal(arrays["loss-advamd"], arrays["loss-standard"])
    again = analyse(given)
    assert again[0] == told
    assert all(np.array_equal(again[1][name], values) for name, values in arrays.items())
    json.dumps(told, allow_nan=False)
