"""AWP: weights move by gamma and come back bit by bit; the gradient that trains is the one at the perturbed weights."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.small import batch_of, double, gradients, method, network, split_of
from turncoat.methods.weight_perturbation import WeightPerturbation
from turncoat.settings import ComputeSettings, TrainingSettings
from turncoat.training import fit, resolve


@settings(max_examples=25, deadline=None)
@given(gamma=st.floats(1e-6, 10), seed=st.integers(0, 100))
def test_weights_come_back_bit_by_bit(gamma, seed):
    net = network(seed).train()
    before = copy.deepcopy(net.state_dict())
    perturbation = WeightPerturbation(net, gamma)
    perturbation.ascend(lambda: net(batch_of(6, seed).images).square().mean())
    for name, value in net.state_dict().items():
        if value.dim() > 1 and "normalize" not in name:
            moved = (value - before[name]).norm() / before[name].norm()
            assert moved.item() == pytest.approx(gamma, rel=1e-2, abs=1e-6)
        else:  # biases, batch norm and its running statistics
            assert torch.equal(value, before[name])
    perturbation.restore()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    perturbation.restore()  # a second time nothing happens
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_step_goes_uphill():
    net = network().train()
    batch = batch_of(8)

    def loss():
        return torch.nn.functional.cross_entropy(net(batch.images), batch.labels)

    before = loss().item()
    perturbation = WeightPerturbation(net, 0.02)
    perturbation.ascend(loss)
    assert loss().item() > before + 0.01


@pytest.mark.parametrize("name", ["pgd", "trades", "mart"])
def test_the_gradient_is_that_at_the_perturbed_weights(name):
    made = method(name, network(steps=2), awp=0.05)
    original = {key: value.clone() for key, value in made.model.named_parameters()}
    plain = method(name, network(steps=2))
    batch = batch_of()
    images = plain.attacked(batch_of())
    # By hand in float64: the gradient of the arm's loss, a step along it layer by layer, the gradient there.
    twin = method(name, double(plain.model))
    twin.objective(batch, images.double())[0].mean().backward()
    with torch.no_grad():
        for weight in twin.model.parameters():
            if weight.dim() > 1:
                weight.add_(0.05 * weight.norm() * weight.grad / weight.grad.norm())
    twin.model.zero_grad()
    expected = twin.objective(batch, images.double())[0].mean()
    expected.backward()
    loss, found, _ = gradients(made, batch_of())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert loss > gradients(plain, batch_of())[0]
    for key, parameter in twin.model.named_parameters():
        torch.testing.assert_close(found[key].double(), parameter.grad, rtol=1e-2, atol=1e-4)
    assert all(torch.equal(value, original[key]) for key, value in made.model.named_parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_in_every_precision_the_perturbed_weights_are_what_is_trained_on(precision):
    compute = replace(resolve(ComputeSettings(device="cpu")), precision=precision)

    def gradient(**settings):
        made = method("pgd", network(steps=2), **settings)
        with compute.autocast():
            loss, _ = made.loss(batch_of())
        loss.backward()
        made.before_step()
        return torch.cat([weight.grad.flatten() for weight in made.model.parameters()])

    plain, perturbed = gradient(), gradient(awp=0.05)
    assert (perturbed - plain).norm() > 0.3 * plain.norm()


def test_running_statistics_move_once_a_pass_of_training():
    made = method("trades", awp=0.01)
    gradients(made, batch_of())
    assert made.model.network[1].num_batches_tracked == 3  # not the passes that find a direction
    assert all(getattr(module, "track_running_stats", True) for module in made.model.modules())


def test_the_trained_weights_are_the_optimisers_and_its_cost_is_counted():
    made = method("mart", network(), split_of(24), awp=0.02)
    passes = fit(
        made,
        split_of(24),
        TrainingSettings(epochs=2, batch_size=8, lr=0.01),
        resolve(ComputeSettings(device="cpu")),
        seed=0,
        validate=lambda model: {"validation_robust": 0.5},
    ).passes
    assert passes["forward"] == passes["backward"] == (10 + 2 + 2) * passes["images"]
    assert made.perturbation.saved == []
