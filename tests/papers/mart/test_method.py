"""MART against its formula written out with numbers, one example at a time, in float64; gradients by differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.small import adversarial, batch_of, double, gradients, method, network, slopes, softmax
from turncoat.methods.adversarial import divergence
from turncoat.papers.mart.method import boosted_cross_entropy, misclassification_kl
from turncoat.settings import AttackSettings

LOGITS = np.random.default_rng(0).normal(0, 2, (5, 4))
ATTACKED = np.random.default_rng(1).normal(0, 2, (5, 4))
LABELS = [0, 3, 2, 1, 0]


def bce(attacked, labels, boosted=True):
    total = 0.0
    for row, label in zip(attacked.tolist(), labels, strict=True):
        q = softmax(row)
        total -= math.log(q[label])
        if boosted:
            total -= math.log(1.0001 - max(q[k] for k in range(len(q)) if k != label))
    return total / len(labels)


def weighted_kl(clean, attacked, labels, weighted=True):
    total = 0.0
    for row, other, label in zip(clean.tolist(), attacked.tolist(), labels, strict=True):
        p, q = softmax(row), softmax(other)
        kl = sum(p[k] * math.log(p[k] / q[k]) for k in range(len(p)))
        total += kl * (1 - p[label] if weighted else 1)
    return total / len(labels)


def as_tensor(array):
    return torch.tensor(array, dtype=torch.float32, requires_grad=True)


@pytest.mark.parametrize("boosted", [True, False])
def test_boosted_cross_entropy_and_its_gradient(boosted):
    logits = as_tensor(ATTACKED)
    loss = boosted_cross_entropy(logits, torch.tensor(LABELS), boosted).mean()
    assert loss.item() == pytest.approx(bce(ATTACKED, LABELS, boosted), rel=1e-5)
    loss.backward()
    expected = slopes(lambda array: bce(array, LABELS, boosted), ATTACKED)
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_regulariser_and_its_gradient_through_both_branches(weighted):
    clean, attacked = as_tensor(LOGITS), as_tensor(ATTACKED)
    loss = misclassification_kl(clean, attacked, torch.tensor(LABELS), weighted).mean()
    assert loss.item() == pytest.approx(weighted_kl(LOGITS, ATTACKED, LABELS, weighted), rel=1e-5)
    loss.backward()
    for tensor, expected in (
        (clean, slopes(lambda array: weighted_kl(array, ATTACKED, LABELS, weighted), LOGITS)),
        (attacked, slopes(lambda array: weighted_kl(LOGITS, array, LABELS, weighted), ATTACKED)),
    ):
        np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-3, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-60, 60), min_size=4, max_size=4), st.lists(st.floats(-60, 60), min_size=4, max_size=4))
def test_losses_stay_finite_and_nonnegative_for_confident_networks(clean, attacked):
    clean = torch.tensor([clean], requires_grad=True)
    attacked = torch.tensor([attacked], requires_grad=True)
    label = torch.tensor([1])
    loss = boosted_cross_entropy(attacked, label) + 5 * misclassification_kl(clean, attacked, label)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(clean.grad).all()
    assert torch.isfinite(attacked.grad).all()
    assert divergence(clean, attacked).item() >= -1e-5
    assert boosted_cross_entropy(attacked, label).item() >= -1.1e-4  # log 1.0001


def by_hand(net, batch, images, beta, boosted, weighted, detach):
    """The whole loss in float64, with explicit sums over examples."""
    q = torch.softmax(net(images), 1)
    p = torch.softmax(net(batch.images), 1)
    p = p.detach() if detach else p
    total = torch.zeros((), dtype=torch.float64)
    for i, label in enumerate(batch.labels.tolist()):
        total = total - torch.log(q[i, label])
        if boosted:
            wrong = max((k for k in range(q.shape[1]) if k != label), key=lambda k: q[i, k].item())
            total = total - torch.log(1.0001 - q[i, wrong])
        weight = 1 - p[i, label] if weighted else 1.0
        total = total + beta * weight * (p[i] * torch.log(p[i] / q[i])).sum()
    return total / len(batch.labels)


@pytest.mark.parametrize(
    "arm",
    [
        {},
        {"boosted": False},
        {"weighted": False},
        {"detach": True},
        {"beta": 2.0, "attack": AttackSettings(steps=2, start="uniform", mode="train")},
    ],
)
def test_the_whole_step_agrees_with_float64(arm):
    made = method("mart", network(steps=2), **arm)
    reference = double(made.model)
    s = made.settings
    images = adversarial(made.model, batch_of(), s.attack)
    loss, found, parts = gradients(made, batch_of())
    expected = by_hand(reference, batch_of(), images, s.beta, s.boosted, s.weighted, s.detach)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert parts["bce"].item() + s.beta * parts["kl"].item() == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(found[name].double(), parameter.grad, rtol=2e-3, atol=2e-5)


def test_without_its_parts_it_is_pgd_training_bit_by_bit():
    attack = AttackSettings(start="gaussian")
    mart = gradients(method("mart", beta=0.0, boosted=False), batch_of())
    pgd = gradients(method("pgd", attack=attack), batch_of())
    assert torch.equal(mart[0], pgd[0])
    assert mart[1].keys() == pgd[1].keys()
    assert all(torch.equal(mart[1][name], pgd[1][name]) for name in pgd[1])


def test_each_component_matters():
    full = gradients(method("mart"), batch_of())[0]
    for arm in ({"boosted": False}, {"weighted": False}, {"beta": 0.0}):
        assert abs(gradients(method("mart", **arm), batch_of())[0] - full) > 1e-4
