"""Standard training on clean images: the baseline and, as an arm, the control that sees the same extra epochs."""

from torch import Tensor

from turncoat.methods.base import Batch, Method, Parts, accuracy, cross_entropy, losses, scores
from turncoat.settings import ArmSettings


class Standard(Method[ArmSettings]):
    """The task's loss on clean images, of a classifier cross-entropy; `best` is chosen by the measure on clean ones."""

    dense = True
    selection = "validation_clean"
    divides = True

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        logits = self.model(batch.images)
        if hasattr(self.model, "losses"):
            return losses(self.model, logits, batch.labels).mean(), scores(self.model, logits, batch.labels)
        return cross_entropy(logits, batch.labels), {"train_accuracy": accuracy(logits, batch.labels)}
