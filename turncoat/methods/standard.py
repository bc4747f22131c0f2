"""Standard training on clean images: the baseline and, as an arm, the control that sees the same extra epochs."""

from torch import Tensor

from turncoat.methods.base import Batch, Method, Parts, accuracy, cross_entropy
from turncoat.settings import ArmSettings


class Standard(Method[ArmSettings]):
    """Cross-entropy on clean images; `best` is chosen by clean accuracy, there being no robustness to choose by."""

    selection = "validation_clean"
    divides = True

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        logits = self.model(batch.images)
        return cross_entropy(logits, batch.labels), {"train_accuracy": accuracy(logits, batch.labels)}
