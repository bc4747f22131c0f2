"""PGD adversarial training: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.

Cross-entropy on images that PGD made against the network as it is (eq. 2.1 of the paper: a min over weights of a max
over perturbations). The attack runs with batch norm in eval mode, as MART's and TRADES's code does, so that the arms
differ in their losses only; `attack.mode: train` is the other habit.
"""

from torch import Tensor

from turncoat.methods.base import AdversarialSettings, Batch, Method, Parts, accuracy, attack, cross_entropy


class PGDTraining(Method[AdversarialSettings]):
    """Train on adversarial images alone."""

    settings_class = AdversarialSettings

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        adversarial = attack(self.model, batch, self.task.threat, self.settings.attack)
        logits = self.model(adversarial)
        return cross_entropy(logits, batch.labels), {"train_accuracy": accuracy(logits, batch.labels)}
