"""PGD training: cross-entropy on adversarial images, in float64; no perturbation is standard training."""

import pytest
import torch

from tests.methods.small import TASK, adversarial, batch_of, double, gradients, method, network
from turncoat.settings import AttackSettings


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_whole_step_agrees_with_float64(mode):
    made = method("pgd", network(steps=2), attack=AttackSettings(mode=mode))
    reference = double(made.model)
    images = adversarial(made.model, batch_of(), made.settings.attack)
    assert TASK.threat.distance(images, batch_of().images).max() == pytest.approx(0.1, abs=1e-6)
    loss, found, _ = gradients(made, batch_of())
    q = torch.softmax(reference(images), 1)
    expected = -sum(torch.log(q[i, label]) for i, label in enumerate(batch_of().labels)) / len(q)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(found[name].double(), parameter.grad, rtol=2e-3, atol=2e-5)


def test_without_perturbation_it_is_standard_training_bit_by_bit():
    pgd = gradients(method("pgd", attack=AttackSettings(radius=0)), batch_of())
    standard = gradients(method("standard"), batch_of())
    assert torch.equal(pgd[0], standard[0])
    assert all(torch.equal(pgd[1][name], standard[1][name]) for name in standard[1])


def test_the_attack_leaves_running_statistics_alone():
    made = method("pgd")
    gradients(made, batch_of())
    assert made.model.network[1].num_batches_tracked == 1  # the training pass, not the ten of the attack
