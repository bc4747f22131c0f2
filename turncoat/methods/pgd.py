"""PGD adversarial training: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.

Cross-entropy on images that PGD made against the network as it is (eq. 2.1 of the paper: a min over weights of a max
over perturbations). The attack runs with batch norm in eval mode, as TRADES's code does, so that the arms
differ in their losses only; `attack.mode: train` is the other habit.
"""

from torch import Tensor
from torch.nn import functional

from turncoat.methods.adversarial import AdversarialTraining, RobustSettings
from turncoat.methods.base import Batch, Parts, accuracy


class PGDTraining(AdversarialTraining[RobustSettings]):
    """Train on adversarial images alone."""

    settings_class = RobustSettings
    divides = True

    def objective(self, batch: Batch, adversarial: Tensor) -> tuple[Tensor, Parts]:
        logits = self.model(adversarial)
        losses = functional.cross_entropy(logits, batch.labels, reduction="none")
        return losses, {"train_accuracy": accuracy(logits, batch.labels)}
