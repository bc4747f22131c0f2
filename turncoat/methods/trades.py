"""TRADES: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019.

    loss = CE(f(x), y) + beta · KL(softmax f(x) || softmax f(x'))        (eq. 5 of the paper; beta is its 1/lambda)

x' maximises the same KL term, from x + 0.001·N(0, 1). The clean branch of the KL is not detached, as in the
authors' code; inside the attack it is a constant.

That code sends clean images through the network twice in a training step, for the cross-entropy and, after the
adversarial ones, for the KL. The logits are the same; batch norm's running statistics move three times.
"""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from turncoat.attacks import attacked
from turncoat.attacks.losses import kl
from turncoat.methods.adversarial import AdversarialTraining, RobustSettings, divergence
from turncoat.methods.base import Batch, Parts, accuracy, attack
from turncoat.settings import AttackSettings


class TradesSettings(RobustSettings):
    """`beta` weighs robustness against accuracy; the paper's CIFAR-10 choice is 6."""

    beta: float = Field(6.0, ge=0)
    attack: AttackSettings = AttackSettings(start="gaussian")


class Trades(AdversarialTraining[TradesSettings]):
    """Clean cross-entropy, and a smooth output around each image."""

    settings_class = TradesSettings
    divides = True

    def attacked(self, batch: Batch) -> Tensor:
        settings = self.settings.attack
        # The reference is the prediction of the mode that the attack runs in: else it would start away from zero.
        with attacked(self.model, settings.mode, batch.generator), torch.no_grad():
            reference = self.model(batch.images).float().log_softmax(1)
        return attack(self.model, batch, self.task.threat, settings, loss=kl(reference))

    def objective(self, batch: Batch, adversarial: Tensor) -> tuple[Tensor, Parts]:
        clean, logits = self.model(batch.images), self.model(adversarial)
        self.model(batch.images)  # the authors' third pass: its logits are those of the first, only statistics move
        natural = functional.cross_entropy(clean, batch.labels, reduction="none")
        smoothness = divergence(clean, logits)
        parts = {
            "train_accuracy": accuracy(logits, batch.labels),
            "natural": natural.detach().mean(),
            "kl": smoothness.detach().mean(),
        }
        return natural + self.settings.beta * smoothness, parts
