"""Calibrated, pseudo-labelled and quantised classifiers as deployable modules."""

import copy

import numpy as np
import pytest
import torch

from turncoat import models
from turncoat.errors import TurncoatError
from turncoat.models.calibrator import Calibrated, PseudoLabelled, against_loss
from turncoat.models.quantised import Quantised, best_grid, quantise

IMAGES = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(24) % 10


def classifier(model="small_cnn"):
    torch.manual_seed(0)
    made = models.Classifier(model, 10, (1, 8, 8), [0.4], [0.3])
    made(IMAGES)  # running statistics that are not their defaults
    return made.eval()


def trained_generator(pipeline):
    """Weights as if something had been learnt."""
    with torch.no_grad():
        for place, parameter in enumerate(pipeline.generator.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(place)) * 0.3)
    return pipeline


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_with_epsilon_0_the_pipeline_equals_the_classifier(signed, attention):
    pipeline = trained_generator(Calibrated(classifier(), 0.0, signed, attention))
    assert torch.equal(pipeline(IMAGES), classifier()(IMAGES))


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_the_perturbation_stays_within_epsilon_and_its_sign(signed, attention):
    pipeline = trained_generator(Calibrated(classifier(), 0.1, signed, attention))
    with torch.no_grad():
        change, seen = pipeline.perturbation(IMAGES), pipeline.calibrate(IMAGES)
    assert change.shape == IMAGES.shape
    assert change.abs().max() <= 0.1
    assert change.abs().max() > 0.01
    assert (change.min() >= 0) == (not signed)
    assert 0 <= seen.min() <= seen.max() <= 1
    torch.testing.assert_close(seen, (IMAGES + change).clamp(0, 1), rtol=0, atol=0)


def test_an_untrained_calibrator_changes_nothing_and_can_still_learn():
    pipeline = Calibrated(classifier(), 0.1)
    assert torch.equal(pipeline(IMAGES), classifier()(IMAGES))
    torch.nn.functional.cross_entropy(pipeline(IMAGES), LABELS).backward()
    assert pipeline.generator.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in pipeline.classifier.parameters())


def test_the_classifier_is_in_eval_mode_whatever_mode_the_pipeline_is_in():
    pipeline = Calibrated(classifier(), 0.1)
    before = models.tensor_digest(pipeline.classifier.state_dict())
    pipeline.train()
    assert pipeline.training
    assert not any(module.training for module in pipeline.classifier.modules())
    pipeline(IMAGES)
    assert models.tensor_digest(pipeline.classifier.state_dict()) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda: trained_generator(Calibrated(classifier(), 0.1, attention=True, width=4, blocks=1)),
        lambda: PseudoLabelled(classifier(), 0.1),
        lambda: quantise(classifier(), 4, 4, IMAGES),
        lambda: trained_generator(Calibrated(quantise(classifier("resnet18"), 4, 4, IMAGES), 0.1)),
    ],
)
def test_a_weights_file_rebuilds_the_pipeline(make, tmp_path):
    module = make().eval()
    models.save(tmp_path / "w.safetensors", module)
    assert torch.equal(models.load(tmp_path / "w.safetensors")(IMAGES), module(IMAGES))


def test_a_calibrator_is_transferred_with_its_weights():
    pipeline = trained_generator(Calibrated(classifier(), 0.1, signed=False))
    other = quantise(classifier(), 2, None, IMAGES)
    moved = pipeline.before(other)
    assert moved.generator is pipeline.generator
    assert moved.classifier is other
    assert not moved.signed
    assert torch.equal(moved.calibrate(IMAGES), pipeline.calibrate(IMAGES))
    assert pipeline.before(pipeline.classifier) is pipeline


def test_descending_towards_a_label_helps_and_the_oracle_helps_most():
    net = classifier()
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(net(images), LABELS).item()
            for images in (IMAGES, against_loss(net, IMAGES, LABELS, 0.02))
        ]
        sure = net(IMAGES).softmax(1).amax(1).mean()
        surer = PseudoLabelled(copy.deepcopy(net), 0.02)(IMAGES).softmax(1).amax(1).mean()
    assert losses[1] < losses[0]
    assert surer > sure
    assert (against_loss(net, IMAGES, LABELS, 0.02) - IMAGES).abs().max() <= 0.02 + 1e-6
    assert net.network[0].weight.grad is None


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantised_weights_lie_on_grids_of_so_many_values(bits):
    original, rounded = classifier(), quantise(classifier(), bits, None, IMAGES)
    for name in ("0", "3", "6", "11"):
        weight = rounded.classifier.network.get_submodule(name).weight.flatten(1)
        full = original.network.get_submodule(name).weight.flatten(1)
        assert max(len(row.unique()) for row in weight) <= 2**bits
        assert (weight - full).abs().max() <= (full.amax(1) - full.amin(1)).max() / (2**bits - 1) * (
            4 if bits == 2 else 2
        )
    state, before = rounded.classifier.state_dict(), original.state_dict()
    untouched = [name for name in state if not name.endswith(("0.weight", "3.weight", "6.weight", "11.weight"))]
    assert all(torch.equal(state[name], before[name]) for name in untouched)


def test_the_best_grid_against_a_slow_float64_search():
    rows = torch.randn(3, 40, generator=torch.Generator().manual_seed(5))
    scale, zero = best_grid(rows, 2)
    for row, chosen_scale, chosen_zero in zip(rows.double().numpy(), scale.tolist(), zero.tolist(), strict=True):

        def error(step, middle, row=row):
            return ((step * (np.clip(np.round(row / step) + middle, 0, 3) - middle) - row) ** 2).sum()

        full = (max(row.max(), 0) - min(row.min(), 0)) / 3
        searched = []
        for shrink in np.linspace(0.3, 1.0, 29):
            middle = np.round(-min(row.min(), 0) * shrink / (full * shrink))
            searched.append(error(full * shrink, middle))
        assert error(chosen_scale, chosen_zero) == pytest.approx(min(searched), rel=1e-4)
        assert min(searched) < searched[-1]  # the shrunken range is worth its search


def test_more_bits_are_closer_and_activations_are_rounded_too():
    full = classifier()(IMAGES)
    errors = [(quantise(classifier(), bits, bits, IMAGES)(IMAGES) - full).abs().mean() for bits in (2, 4, 8)]
    assert errors[0] > errors[1] > errors[2] > 0
    seen = []
    rounded = quantise(classifier(), 8, 2, IMAGES)
    rounded.classifier.network.get_submodule("3").register_forward_hook(lambda _, inputs, out: seen.append(inputs[0]))
    rounded(IMAGES)
    assert len(seen[0].unique()) <= 4


def test_gradients_pass_through_a_quantised_classifier():
    images = IMAGES.clone().requires_grad_()
    rounded = quantise(classifier(), 4, 4, IMAGES)
    torch.nn.functional.cross_entropy(rounded(images), LABELS).backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, float("nan")])
def test_a_radius_outside_the_pixel_range_is_refused(epsilon):
    with pytest.raises(TurncoatError, match=r"epsilon must lie in \[0, 1\]"):
        Calibrated(classifier(), epsilon)


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_outside_2_to_8_are_refused(bits):
    with pytest.raises(TurncoatError, match="2 to 8 bits"):
        Quantised(classifier(), bits)
