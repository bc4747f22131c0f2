"""Fast AdvProp: Mei et al., "Fast AdvProp", ICLR 2022: AdvProp at about the price of standard training.

Of each batch four images in five are clean only. The fifth takes one attack step, and the backward pass that gives
the step its direction gives the weights their gradient too, so nothing is spent on the attack alone:

    loss = 1/n · [ Σ CE(clean) + share · Σ CE(started) + share · Σ CE(x') ]

Clean images go through the main batch norm, started and attacked ones through the auxiliary one, which is not
deployed. Ratio 4:1, one step, weights 1, 1/2, 1/2 are the authors' defaults; the auxiliary batch norm for the started
images and the common 1/n are readings. The step keeps batch norm in training mode: the pass is a training pass.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from turncoat.attacks import Threat
from turncoat.attacks.pgd import ascend
from turncoat.data.batches import DeviceSplit
from turncoat.methods.base import Batch, Method, Parts
from turncoat.models.dual_norm import branch_gap, check_splits, extract, split_norms
from turncoat.settings import SHARES, ArmSettings


class FastAdvPropSettings(ArmSettings):
    """Radius and step in units of the data set's epsilon: 1/255 and 1/255 where that is 8/255."""

    renamed: ClassVar = SHARES

    ratio: int = Field(4, ge=1, description="clean images to each attacked one")
    share: float = Field(0.5, ge=0, description="weight of the started images, and of the attacked ones")
    radius: float = Field(0.125, gt=0)
    relative_step: float = Field(0.125, gt=0)


class FastAdvProp(Method[FastAdvPropSettings]):
    """One attacked image to four clean ones, the attack's gradient used twice."""

    settings_class = FastAdvPropSettings
    selection = "validation_clean"

    def check(self, network: nn.Module) -> None:
        check_splits(network)

    def prepare(self, network: nn.Module, train: DeviceSplit, seed: int) -> DeviceSplit:
        self.model = network
        self.route = split_norms(network, ["main", "auxiliary"])
        return train

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        settings, n = self.settings, len(batch.images)
        few = max(1, n // (settings.ratio + 1))
        threat = Threat(self.task.threat.norm, self.task.threat.epsilon * settings.radius)
        images, labels = batch.images[:few], batch.labels[:few]
        started = threat.random_start(images, batch.generator).requires_grad_()
        with self.route(main=n - few, auxiliary=few):
            logits = self.model(torch.cat([batch.images[few:], started]))
        losses = functional.cross_entropy(logits, torch.cat([batch.labels[few:], labels]), reduction="none")
        first = (losses[: n - few].sum() + settings.share * losses[n - few :].sum()) / n
        # Here and not in the trainer: the step needs the input's gradient, the optimiser gets the weights' in passing.
        first.backward()
        assert started.grad is not None
        size = settings.relative_step / settings.radius * threat.epsilon
        adversarial = threat.project(ascend(started.detach(), started.grad, threat, size), images)
        with self.route(auxiliary=few):
            attacked = functional.cross_entropy(self.model(adversarial), labels, reduction="none")
        second = settings.share * attacked.sum() / n
        parts = {
            "train_accuracy": (logits[: n - few].detach().argmax(1) == batch.labels[few:]).float().mean(),
            "adversarial": attacked.detach().mean(),
            "branch_gap": branch_gap(self.model, "auxiliary"),
        }
        return first.detach() + second, parts

    def deploy(self, model: nn.Module) -> nn.Module:
        """The network of the baseline's size: main batch norm, nothing else."""
        return extract(model)
