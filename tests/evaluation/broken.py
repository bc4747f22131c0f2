"""Defences that only look like ones, around a network without any: each once published, or a common slip."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Defended(nn.Module):
    """A network with something in front of it or behind it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


class DropoutLeftOn(Defended):
    def forward(self, images: Tensor) -> Tensor:
        return self.network(functional.dropout(images, 0.2, training=True))


class HugeLogits(Defended):
    """The softmax saturates, and the gradient of the cross-entropy underflows to zero."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) * 1e4


class Rounded(Defended):
    """Pixels rounded to a few levels: the gradient of rounding is zero."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images * 15).round() / 15)


class NanGradients(Defended):
    """The derivative of the root at zero is infinite, and zero times infinity is NaN."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images + (images * 0).sqrt())


class Softmax(Defended):
    """Probabilities, so sharp that their own gradient is gone."""

    def forward(self, images: Tensor) -> Tensor:
        return (self.network(images) * 20).softmax(1)


class NoisyLogits(Defended):
    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return logits + 0.05 * logits.std() * torch.randn_like(logits)
