"""What a calibrator has to be compared with: the classifier itself prepared for shifts, or helped without training.

`weights`     the classifier fine-tuned on shifted images; with `start: scratch`, trained with them as augmentations
`statistics`  batch norm's running statistics taken anew on shifted images, all weights as they were
`input`       one step against the gradient of the loss for the classifier's own answer, at test time (pseudo-label)
`nothing`     the classifier as it is; with `quantised`, what a calibrator has to repair

The last two learn nothing: one epoch is enough for them.
"""

import copy
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from turncoat.data.batches import Batch, DeviceSplit
from turncoat.methods.base import Method, Parts, accuracy, cross_entropy
from turncoat.methods.shifting import ShiftingSettings, rounded, shifted
from turncoat.models.calibrator import PseudoLabelled
from turncoat.models.dual_norm import check_splits


class AdaptedSettings(ShiftingSettings):
    """Comparators of the calibrator."""

    renamed: ClassVar = {"epsilon": "bound now, in pixels of [0, 1]"}

    adapt: Literal["weights", "statistics", "input", "nothing"] = "weights"
    bound: float = Field(32 / 255, ge=0, le=1, description="step of `input`, in pixels of [0, 1]")


class Adapted(Method[AdaptedSettings]):
    """A classifier adapted to shifts without a calibrator."""

    settings_class = AdaptedSettings
    selection = "epoch"  # nothing on the validation split measures shifts: the last epoch is deployed

    def check(self, network: nn.Module) -> None:
        if self.settings.adapt == "statistics":
            check_splits(network)

    def prepare(self, network: nn.Module, train: DeviceSplit, seed: int) -> DeviceSplit:
        self.model = rounded(network, train, self.settings.quantised, seed)
        return train

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        self.model.train(self.settings.adapt in ("weights", "statistics"))
        logits = self.model(shifted(batch, self.settings))
        return cross_entropy(logits, batch.labels), {"train_accuracy": accuracy(logits, batch.labels)}

    def before_step(self) -> None:
        if self.settings.adapt != "weights":
            self.model.zero_grad(set_to_none=True)  # without gradients the optimiser leaves weights alone

    def deploy(self, model: nn.Module) -> nn.Module:
        if self.settings.adapt == "input":
            return PseudoLabelled(copy.deepcopy(model), self.settings.bound)
        return model
