"""The momentum iterative method, and the average of probabilities through which it meets random networks."""

import pytest
import torch
from torch import Tensor, nn

from turncoat.attacks import Counter, Threat, eot, momentum, pgd
from turncoat.attacks.engine import input_gradient
from turncoat.attacks.losses import ce, objective

from .nets import linear, pictures, predicted, seeded

LINF = Threat("linf", 0.1)


class Drawn(nn.Module):
    """Linear logits, each pass times another factor: one of a fixed cycle."""

    def __init__(self, factors: list[float]) -> None:
        super().__init__()
        self.net, self.factors = linear(), factors

    def forward(self, images: Tensor) -> Tensor:
        scale = torch.tensor(self.factors).repeat_interleave(len(images) // len(self.factors))
        logits: Tensor = self.net(images) * scale[:, None]
        return logits


@torch.no_grad()
def predicted_logits(net: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = net(images)
    return logits


def test_without_decay_it_is_pgd_with_that_step() -> None:
    net, images = linear(), pictures()
    labels = predicted(net, images)
    found = momentum(net, images, labels, LINF, steps=10, decay=0.0, generator=seeded())
    assert torch.equal(found, pgd(net, images, labels, LINF, steps=10, relative_step=0.5, generator=seeded()))
    moved = momentum(net, images, labels, LINF, steps=10, generator=seeded())
    assert (LINF.distance(moved, images) <= 0.1 + 1e-6).all()


def test_its_cost_is_its_steps() -> None:
    net = Counter(linear())
    momentum(net, pictures(), predicted(net.model, pictures()), LINF, steps=7, generator=seeded())
    assert (net.forwards, net.backwards) == (42, 42)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        momentum(linear(), pictures(), torch.zeros(6, dtype=torch.int64), LINF, steps=1, decay=decay)


def test_decay_bridges_gradients_that_turn_back_and_forth() -> None:
    """Passes in turn show the gradient and, weaker, its opposite: the newest alone leads nowhere."""

    class Turning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.count = linear(), 0

        def forward(self, images: Tensor) -> Tensor:
            self.count += 1
            seen: Tensor = self.net(images)
            # the value stays, the gradient turns
            return seen if self.count % 3 else seen.detach() - (seen - seen.detach())

    net, images = linear(), pictures(64)
    labels = predicted(net, images)

    def lost(decay: float) -> float:
        found = momentum(Turning(), images, labels, LINF, steps=9, decay=decay, generator=seeded())
        return float(ce(predicted_logits(net, found), labels).mean())

    assert lost(0.9) > lost(0.0)


def test_the_mean_probability_is_what_is_driven_down() -> None:
    net, images = Drawn([0.5, 3.0]), pictures()
    labels = predicted(net.net, images)
    seen = eot(net, 2, average="probabilities")
    wanted = images.clone().requires_grad_()
    logits = net(wanted.repeat(2, 1, 1, 1)).view(2, len(images), -1)
    mean = logits.softmax(2).mean(0).gather(1, labels[:, None])[:, 0]
    (by_hand,) = torch.autograd.grad(-mean.log().sum(), wanted)
    gradient, losses, _ = input_gradient(seen, images, objective("ce"), labels, None, None)
    assert torch.allclose(gradient, by_hand, atol=1e-5)
    assert torch.allclose(losses, -mean.log().detach(), atol=1e-5)
    assert torch.allclose(seen(images).exp().sum(1), torch.ones(len(images)), atol=1e-5)
    single = eot(net.net, 1, average="probabilities")
    plain, _, _ = input_gradient(net.net, images, objective("ce"), labels, None, None)
    assert torch.allclose(input_gradient(single, images, objective("ce"), labels, None, None)[0], plain, atol=1e-5)
    with pytest.raises(ValueError, match="choose one of loss, logits, probabilities"):
        eot(net, 2, average="votes")  # type: ignore[arg-type]
