"""What misclassified examples are worth: the experiment that motivates MART (Wang et al., ICLR 2020, figure 1).

PGD training in which one subset of the training images is treated otherwise. A network trained with PGD beforehand
chooses: those that it misclassifies, or as many of those that it classifies correctly. Treatments: no perturbation, a
weaker attack, or beta · KL(p || q) added to their loss. A subset that matters shows in the robust accuracy.

Readings: the choosing network's schedule, one FGSM step as the weaker attack, beta 5 as in MART.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from turncoat.data.batches import DeviceSplit
from turncoat.errors import TurncoatError
from turncoat.methods.adversarial import divergence
from turncoat.methods.base import AdversarialSettings, Batch, Method, Parts, accuracy, attack
from turncoat.methods.pseudo_labels import predictions
from turncoat.methods.reference import train_reference
from turncoat.randomness import generator
from turncoat.settings import AttackSettings, TrainingSettings


class MisclassifiedSettings(AdversarialSettings):
    """Which subset, and what is done with it."""

    subset: Literal["misclassified", "correct"]
    treatment: Literal["unperturbed", "weaker", "regularised"]
    weaker: AttackSettings = AttackSettings(steps=1, step=1.0, start="none")
    beta: float = Field(5.0, ge=0)
    reference: TrainingSettings = Field(
        TrainingSettings(epochs=10, batch_size=50, lr=0.1), description="schedule of the network that chooses"
    )


class Misclassified(Method[MisclassifiedSettings]):
    """PGD training with one subset treated otherwise."""

    settings_class = MisclassifiedSettings

    def prepare(self, network: nn.Module, train: DeviceSplit, seed: int) -> DeviceSplit:
        self.model = network
        reference = train_reference(network, train, self.settings.reference, self.task, seed, self.settings.attack)
        self.chosen = choose(predictions(reference, train.images) == train.labels, self.settings.subset, seed)
        return train

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        settings, chosen = self.settings, self.chosen[batch.index]
        adversarial = attack(self.model, batch, self.task.threat, settings.attack)
        if settings.treatment != "regularised":
            instead = batch.images
            if settings.treatment == "weaker":
                instead = attack(self.model, batch, self.task.threat, settings.weaker)
            adversarial = torch.where(chosen[:, None, None, None], instead, adversarial)
        logits = self.model(adversarial)
        losses = functional.cross_entropy(logits, batch.labels, reduction="none")
        if settings.treatment == "regularised":
            losses = losses + settings.beta * chosen * divergence(self.model(batch.images), logits)
        return losses.mean(), {"train_accuracy": accuracy(logits, batch.labels), "chosen": chosen.float().mean()}


def choose(right: Tensor, subset: str, seed: int) -> Tensor:
    """The images (n,) bool that are not `right`, or with `subset` "correct" as many of those that are, at random.

    Raises:
        TurncoatError: none are wrong, or more than half.
    """
    wrong = int((~right).sum())
    if not 0 < wrong <= len(right) // 2:
        raise TurncoatError(
            f"reference: the choosing network misclassifies {wrong} of {len(right)} training images, so there are "
            f"no two subsets to compare; give it {'fewer' if wrong == 0 else 'more'} epochs"
        )
    if subset == "misclassified":
        return ~right
    shuffled = torch.randperm(len(right), generator=generator(seed, "subset")).to(right.device)
    chosen = torch.zeros_like(right)
    chosen[shuffled[right[shuffled]][:wrong]] = True
    return chosen
