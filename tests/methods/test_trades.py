"""TRADES in float64, its attack on the KL term, and what is left of it without beta."""

import pytest
import torch

from tests.methods.small import TASK, adversarial, batch_of, double, gradients, method, network
from turncoat.attacks.losses import kl
from turncoat.settings import AttackSettings


def attacked_images(made, batch):
    """Images that maximise the divergence from the prediction in the mode of the attack."""
    net = made.model
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train(made.settings.attack.mode == "train")
    with torch.no_grad():
        reference = net(batch.images).log_softmax(1)
    net.load_state_dict(before)
    net.train()
    return adversarial(net, batch, made.settings.attack, loss=kl(reference))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_whole_step_agrees_with_float64(mode):
    made = method("trades", network(steps=2), beta=3.0, attack=AttackSettings(start="gaussian", mode=mode))
    reference = double(made.model)
    batch = batch_of()
    images = attacked_images(made, batch)
    loss, found, parts = gradients(made, batch_of())
    p, q = torch.softmax(reference(batch.images), 1), torch.softmax(reference(images), 1)
    expected = torch.zeros((), dtype=torch.float64)
    for i, label in enumerate(batch.labels.tolist()):
        expected = expected - torch.log(p[i, label]) + 3.0 * (p[i] * torch.log(p[i] / q[i])).sum()
    expected = expected / len(batch.labels)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert parts["natural"].item() + 3.0 * parts["kl"].item() == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(found[name].double(), parameter.grad, rtol=2e-3, atol=2e-5)


def test_the_attack_raises_the_divergence():
    made = method("trades", network(steps=2))
    batch = batch_of()
    images = made.attacked(batch)
    made.model.eval()
    with torch.no_grad():
        clean = made.model(batch.images)
        noise = TASK.threat.random_start(batch.images, batch.generator)
        far, near = (kl(clean.log_softmax(1))(made.model(x), batch.labels, None) for x in (images, noise))
    assert (far > near).all()


def test_without_beta_the_images_are_clean_ones():
    trades = gradients(method("trades", beta=0.0), batch_of())
    standard = gradients(method("standard"), batch_of())
    assert torch.equal(trades[0], standard[0])
    for name, gradient in standard[1].items():
        torch.testing.assert_close(trades[1][name], gradient, rtol=1e-5, atol=1e-7)
