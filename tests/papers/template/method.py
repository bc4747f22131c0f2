"""Toy: cross-entropy on images with uniform noise.

loss = CE(f(clip(x + u)), y),   u uniform in [−share · ε, share · ε]
"""

import torch
from pydantic import Field
from torch import Tensor

from turncoat.methods.base import Batch, Method, Parts, accuracy, cross_entropy
from turncoat.settings import ArmSettings


class ToySettings(ArmSettings):
    """`share` of the data set's radius that the noise has."""

    share: float = Field(1.0, ge=0)


class Toy(Method[ToySettings]):
    """Training on images with uniform noise."""

    settings_class = ToySettings

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        noise = torch.rand(batch.images.shape, generator=batch.generator, device=batch.images.device)
        reach = self.settings.share * self.task.threat.epsilon
        logits = self.model((batch.images + reach * (2 * noise - 1)).clamp(0, 1))
        return cross_entropy(logits, batch.labels), {"train_accuracy": accuracy(logits, batch.labels)}
