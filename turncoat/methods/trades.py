"""TRADES: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019.

    loss = CE(f(x), y) + beta · KL(softmax f(x) || softmax f(x'))        (eq. 5 of the paper; beta is its 1/lambda)

x' maximises the same KL term, from x + 0.001·N(0, 1). The clean branch of the KL is not detached, as in the
authors' code; inside the attack it is a constant.
"""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from turncoat.attacks.losses import kl
from turncoat.methods.base import AdversarialSettings, Batch, Method, Parts, accuracy, attack, cross_entropy
from turncoat.settings import AttackSettings


class TradesSettings(AdversarialSettings):
    """`beta` weighs robustness against accuracy; the paper's CIFAR-10 choice is 6."""

    beta: float = Field(6.0, ge=0)
    attack: AttackSettings = AttackSettings(start="gaussian")


class Trades(Method[TradesSettings]):
    """Clean cross-entropy, and a smooth output around each image."""

    settings_class = TradesSettings

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        # The attack compares with the prediction that eval mode gives: the mode it runs in itself.
        self.model.eval()
        with torch.no_grad():
            reference = self.model(batch.images).float().log_softmax(1)
        self.model.train()
        adversarial = attack(self.model, batch, self.task.threat, self.settings.attack, loss=kl(reference))
        clean, attacked = self.model(batch.images), self.model(adversarial)
        natural = cross_entropy(clean, batch.labels)
        divergence = functional.kl_div(
            attacked.float().log_softmax(1), clean.float().log_softmax(1), reduction="batchmean", log_target=True
        )
        parts = {
            "train_accuracy": accuracy(attacked, batch.labels),
            "natural": natural.detach(),
            "kl": divergence.detach(),
        }
        return natural + self.settings.beta * divergence, parts
