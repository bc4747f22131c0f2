"""Running statistics of batch norm after a training step, by hand in float64: which images pass, in which order.

The official orders: MART clean, adversarial; TRADES clean, adversarial, clean; PGD training adversarial alone. What
enters a layer in training mode hangs on the batch alone, so it is taken from a float64 twin one batch at a time, and
the momentum updates are made here, in plain arithmetic.
"""

import copy

import pytest
import torch
from torch import nn

from tests.methods.small import TASK, adversarial, batch_of, double, gradients, method, network, split_of
from turncoat.attacks.losses import kl
from turncoat.papers.mart import misclassified
from turncoat.settings import AttackSettings, ComputeSettings, TrainingSettings
from turncoat.training import fit, resolve

SHORT = {"epochs": 1, "batch_size": 6, "lr": 0.01}
SEMI = {"labelled": 0.5, "labeller": SHORT}
#    method, its settings, what passes in training mode
CASES = [
    ("pgd", {}, "a"),
    ("pgd", {"attack": AttackSettings(mode="train")}, "a"),
    ("mart", {}, "ca"),
    ("mart", {"detach": True}, "ca"),
    ("mart", {"attack": AttackSettings(start="gaussian", mode="train")}, "ca"),
    ("mart", {"semi": SEMI}, "ca"),
    ("mart", {"beta": 0.0}, "a"),
    ("trades", {}, "cac"),
    ("trades", {"attack": AttackSettings(start="gaussian", mode="train")}, "cac"),
    ("trades", {"semi": SEMI}, "cac"),
    ("misclassified", {"subset": "misclassified", "treatment": "regularised"}, "ca"),
]


def layers(net):
    return {name: module for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}


def entering(net, images):
    """What enters each batch norm in training mode, (n, c, h, w) float64 by name; `net` stays as it is."""
    twin, found = double(net), {}
    for name, layer in layers(twin).items():
        layer.register_forward_pre_hook(lambda module, inputs, name=name: found.update({name: inputs[0].detach()}))
    with torch.no_grad():
        twin(images)
    return found


def by_hand(net, batches):
    """Running means and variances of each layer after these batches, momentum 0.1, the variance unbiased."""
    found = {name: (layer.running_mean.double(), layer.running_var.double()) for name, layer in layers(net).items()}
    for images in batches:
        for name, inputs in entering(net, images).items():
            values = inputs.transpose(0, 1).flatten(1)
            mean = values.sum(1) / values.shape[1]
            variance = ((values - mean[:, None]) ** 2).sum(1) / (values.shape[1] - 1)
            old_mean, old_variance = found[name]
            found[name] = 0.9 * old_mean + 0.1 * mean, 0.9 * old_variance + 0.1 * variance
    return found


def attacked_images(made, batch):
    """The arm's adversarial images, found without it."""
    twin, settings = copy.deepcopy(made.model), made.settings.attack
    if made.settings.method != "trades":
        return adversarial(twin, batch, settings)
    reader = copy.deepcopy(twin).train(settings.mode == "train")
    with torch.no_grad():
        reference = reader(batch.images).log_softmax(1)
    return adversarial(twin, batch, settings, loss=kl(reference))


@pytest.mark.parametrize(("name", "settings", "order"), CASES)
def test_statistics_move_in_the_official_order(name, settings, order, monkeypatch):
    if name == "misclassified":  # no network to choose by: images 0 and 3
        chosen = torch.tensor([True, False, False, True, False, False])
        monkeypatch.setattr(misclassified, "train_reference", lambda *given: None)
        monkeypatch.setattr(misclassified, "margins", lambda network, split: torch.where(chosen, -1.0, 1.0))
    made = method(name, network(steps=2), split=split_of(24) if "semi" in settings else None, **settings)
    batch = batch_of()
    passing = {"c": batch.images, "a": attacked_images(made, batch_of())}
    before = by_hand(made.model, [])
    expected = by_hand(made.model, [passing[which] for which in order])
    turned = by_hand(made.model, [passing[which] for which in ("ca" if order == "cac" else order[::-1])])
    gradients(made, batch)

    for layer_name, layer in layers(made.model).items():
        for value, wanted, was, other in zip(
            (layer.running_mean, layer.running_var),
            expected[layer_name],
            before[layer_name],
            turned[layer_name],
            strict=True,
        ):
            torch.testing.assert_close(value.double(), wanted, rtol=1e-5, atol=1e-7)
            assert (wanted - was).abs().max() > 1e-3
            if len(order) > 1:  # and the order shows
                assert (wanted - other).abs().max() > 100 * (value.double() - wanted).abs().max()


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", ["pgd", "mart", "trades"])
def test_the_inner_maximisation_moves_nothing(name, mode):
    made = method(name, network(steps=2), attack=AttackSettings(mode=mode))
    before = copy.deepcopy(made.model.state_dict())
    seen = []
    for layer in layers(made.model).values():
        layer.register_forward_pre_hook(lambda module, inputs: seen.append(module.training))
    images = made.attacked(batch_of())
    assert TASK.threat.distance(images, batch_of().images).max() > 0.05
    assert set(seen) == {mode == "train"}
    assert made.model.training
    assert all(torch.equal(value, before[key]) for key, value in made.model.state_dict().items())


@pytest.mark.parametrize(("name", "forward", "backward"), [("pgd", 11, 11), ("mart", 12, 12), ("trades", 14, 12)])
def test_every_pass_is_in_the_record_s_cost(name, forward, backward):
    """Ten of the attack and those of training; TRADES also looks at its reference, and passes clean images again."""
    passes = fit(
        method(name, network(), split_of(24)),
        split_of(24),
        TrainingSettings.model_validate(SHORT | {"epochs": 2}),
        resolve(ComputeSettings(device="cpu")),
        seed=0,
        validate=lambda model: {"validation_robust": 0.5},
    ).passes
    assert passes["forward"] == forward * passes["images"]
    assert passes["backward"] == backward * passes["images"]
