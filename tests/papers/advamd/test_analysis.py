"""Analyses on networks simple enough that the answer is known beforehand."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from tests.methods.small import CLASSES, TASK, images_of, network, split_of
from turncoat.attacks import SHIFTS, Threat, fgsm, pgd
from turncoat.evaluation.analysis import before_and_after, fgsm_curves, judgement_surface, mismatch, vulnerability
from turncoat.evaluation.by_paper import Arm, Material, amendment, calibration, retraining
from turncoat.methods.universal import reached
from turncoat.models.calibrator import Calibrated
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


def test_fgsm_loses_accuracy_with_its_radius_and_transfers_less():
    net, source = network(seed=0), network(seed=1)
    images = images_of(40)
    with torch.no_grad():
        labels = net.eval()(images).argmax(1)
    curves = fgsm_curves(net, source.eval(), images, labels, TASK.threat, [0.0, 0.5, 2.0])
    assert curves["white-box"][0] == curves["transferred"][0] == 40
    assert curves["white-box"][2] < curves["white-box"][1] <= 40
    assert curves["white-box"][2] < curves["transferred"][2]
    attacked = fgsm(source, images, labels, Threat("linf", 2 * TASK.threat.epsilon))
    assert curves["transferred"][2] == int((net(attacked).argmax(1) == labels).sum())
    assert fgsm_curves(net, net, images, labels, TASK.threat, [2.0])["transferred"] == curves["white-box"][2:]


def test_confidence_before_and_after_a_calibrator():
    """Against a count image by image, and in two batches as in one."""
    pipeline = Calibrated(network(steps=2), 0.2)
    with torch.no_grad():
        pipeline.generator.weight.normal_(generator=generator("calibrator"))
    pipeline.eval()
    images, labels = images_of(9), torch.arange(9) % CLASSES
    shares, table = before_and_after(pipeline, images, labels, bins=5, batch_size=4)
    expected, rose = np.zeros((5, 5), int), 0
    for image, label in zip(images, labels.tolist(), strict=True):
        with torch.no_grad():
            before = pipeline.classifier(image[None]).softmax(1)[0, label].item()
            after = pipeline(image[None]).softmax(1)[0, label].item()
        expected[min(int(before * 5), 4), min(int(after * 5), 4)] += 1
        rose += after > before + 0.01
    np.testing.assert_array_equal(table, expected)
    assert shares["rose"] == pytest.approx(rose / 9, abs=1e-6)
    right = (pipeline(images).argmax(1) == labels).float().mean().item()
    assert shares["after"] == pytest.approx(right, abs=1e-6)
    shares, table = before_and_after(Calibrated(network(), 0.0).eval(), images, labels)
    assert shares["rose"] == shares["fell"] == 0
    assert table.sum() == np.trace(table) == 9


# ---------------------------------------------------------------------------------- the papers, over a study's arms


def material(**arms):
    """A tiny study: arm name -> (its settings, its network)."""
    baseline = network().eval()
    test, train = split_of(24), split_of(16, seed=1)
    attacked = fgsm(baseline, test.floats(), test.labels, TASK.threat)
    rows = [reached(baseline, test, torch.full((1, 8, 8), 0.1), target, CLASSES) for target in range(CLASSES)]
    how = {"form": "sgd", "passes": 1, "batch_size": 8, "images": 12, "targets": rows}
    return Material(
        arms={name.replace("_", "-"): Arm(plan, lambda net=net: net) for name, (plan, net) in arms.items()},
        baseline=baseline,
        train=train,
        test=test,
        classes=CLASSES,
        threat=TASK.threat,
        seed=0,
        attacked=attacked,
        made={"sgd": how, "weak": how | {"targets": [row | {"reached": -1} for row in rows]}},
        universal={name: torch.full((CLASSES, 1, 8, 8), 0.1) for name in ("sgd", "weak")},
    )


def test_the_analysis_of_advamd_is_of_its_arms_and_their_comparators():
    plain, robust = network(seed=1).eval(), network(seed=2).eval()
    given = material(
        standard=({"method": "standard"}, plain),
        mart=({"method": "mart"}, plain),
        advamd=({"method": "advamd"}, robust),
    )
    told, arrays = amendment(given)
    assert list(told["mismatch"]) == list(told["surface"]) == ["standard", "advamd"]
    assert told["mismatch"]["advamd"]["groups"] == ["mediate", "adversarial"]
    assert arrays["vulnerability"].shape == (24,)
    assert arrays["loss-advamd"].shape == arrays["accuracy-advamd"].shape == (21, 21)
    assert not np.array_equal(arrays["loss-advamd"], arrays["loss-standard"])
    again = amendment(given)
    assert again[0] == told
    assert all(np.array_equal(again[1][name], values) for name, values in arrays.items())
    json.dumps(told, allow_nan=False)


def test_the_analysis_of_rat_meets_old_and_new_perturbations():
    arm = network(seed=3).eval()
    given = material(
        rat_clean=({"method": "rat", "perturbation": "none"}, arm),
        rat=({"method": "rat", "perturbation": "targeted"}, arm),
    )
    told, arrays = retraining(given)
    assert (told["arm"], told["form"], told["of_class"]) == ("rat", "sgd", [6, 6, 6, 6])
    assert list(told["fgsm"]) == ["rat-clean", "rat"]
    assert told["radii"][-1] * TASK.threat.epsilon <= 1
    for target in range(CLASSES):
        rows = reached(arm, given.test, given.universal["sgd"][target], target, CLASSES)
        assert arrays["stored"][:, target].tolist() == rows["from"]
        rows = reached(arm, given.test, torch.from_numpy(arrays["perturbations"][target]), target, CLASSES)
        assert arrays["new"][:, target].tolist() == rows["from"]
    assert np.abs(arrays["perturbations"]).max() <= TASK.threat.epsilon + 1e-6
    told, arrays = retraining(material(rat_clean=({"method": "rat", "perturbation": "none"}, arm)))
    assert "arm" not in told
    assert not arrays


def test_the_analysis_of_calibrators_changes_images_by_what_the_pipeline_changes():
    pipeline = Calibrated(network(), 0.2)
    with torch.no_grad():
        pipeline.generator.weight.normal_(generator=generator("calibrator"))
    told, arrays = calibration(material(reverse=({"method": "reverse"}, pipeline.eval())))
    assert told["scenes"] == ["clean", *SHIFTS]
    assert list(told["arms"]["reverse"]) == told["scenes"]
    assert arrays["confidence-reverse"].sum((1, 2)).tolist() == [24] * len(told["scenes"])
    shown = torch.from_numpy(arrays["images"])
    with torch.no_grad():
        after = pipeline(shown).softmax(1)
    np.testing.assert_allclose(arrays["answers-reverse"][1], after, atol=1e-6)
    np.testing.assert_allclose(pipeline.calibrate(shown).detach() - shown, arrays["changes-reverse"], atol=1e-6)
