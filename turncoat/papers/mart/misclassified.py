"""What misclassified examples are worth: the experiment that motivates MART (Wang et al., ICLR 2020, figure 1).

PGD training in which one subset of the training images is treated otherwise. A network trained with PGD beforehand
chooses: those that it misclassifies, or as many of the others. Treatments: no perturbation, a weaker attack, or
beta · KL(p || q) added to their loss. A subset that matters shows in the robust accuracy.

Where the choosing network fits the training set so well that fewer than `share` are wrong, those nearest to being wrong
fill the subset up. `chosen_misclassified` of history.json is the part that is wrong indeed: verdicts go by it.

Readings: the choosing network's schedule, the share, one FGSM step as the weaker attack, beta 5 as in MART.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from turncoat.attacks.losses import margin
from turncoat.data.batches import DeviceSplit
from turncoat.errors import TurncoatError
from turncoat.methods.adversarial import divergence
from turncoat.methods.base import AdversarialSettings, Batch, Method, Parts, accuracy, attack
from turncoat.methods.reference import train_reference
from turncoat.randomness import generator
from turncoat.settings import AttackSettings, TrainingSettings


class MisclassifiedSettings(AdversarialSettings):
    """Which subset, and what is done with it."""

    subset: Literal["misclassified", "correct"]
    treatment: Literal["unperturbed", "weaker", "regularised"]
    weaker: AttackSettings = AttackSettings(steps=1, relative_step=1.0, start="none")
    beta: float = Field(5.0, ge=0)
    share: float = Field(0.1, gt=0, le=0.5, description="of the training images in each subset, at least")
    reference: TrainingSettings = Field(
        TrainingSettings(epochs=10, batch_size=50, lr=0.1), description="schedule of the network that chooses"
    )


class Misclassified(Method[MisclassifiedSettings]):
    """PGD training with one subset treated otherwise."""

    settings_class = MisclassifiedSettings

    def prepare(self, network: nn.Module, train: DeviceSplit, seed: int) -> DeviceSplit:
        self.model = network
        reference = train_reference(network, train, self.settings.reference, self.task, seed, self.settings.attack)
        found = margins(reference, train)
        self.chosen = choose(found, self.settings.subset, self.settings.share, seed)
        # of the chosen: all of them, unless the subset was filled up
        self.misclassified = (found[self.chosen] <= 0).float().mean()
        return train

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        settings, chosen = self.settings, self.chosen[batch.index]
        adversarial = attack(self.model, batch, self.task.threat, settings.attack)
        if settings.treatment != "regularised":
            instead = batch.images
            if settings.treatment == "weaker":
                instead = attack(self.model, batch, self.task.threat, settings.weaker)
            adversarial = torch.where(chosen[:, None, None, None], instead, adversarial)
        # clean images first, as in MART's code: batch norm's running statistics hang on the order
        clean = self.model(batch.images) if settings.treatment == "regularised" else None
        logits = self.model(adversarial)
        losses = functional.cross_entropy(logits, batch.labels, reduction="none")
        if clean is not None:
            losses = losses + settings.beta * chosen * divergence(clean, logits)
        return losses.mean(), {
            "train_accuracy": accuracy(logits, batch.labels),
            "chosen": chosen.float().mean(),
            "chosen_misclassified": self.misclassified,
        }


@torch.no_grad()
def margins(network: nn.Module, split: DeviceSplit, batch_size: int = 1000) -> Tensor:
    """How far the label's logit lies above the highest other one, (n,); below 0 for misclassified images."""
    network.eval()
    starts = range(0, len(split), batch_size)
    return torch.cat(
        [-margin(network(split.floats(i, i + batch_size)), split.labels[i : i + batch_size]) for i in starts]
    )


def choose(margins: Tensor, subset: str, share: float, seed: int) -> Tensor:
    """The images (n,) bool of negative margin, filled up to `share`; with `subset` "correct" as many others, at random.

    Raises:
        TurncoatError: more than half are wrong.
    """
    count = len(margins)
    wrong = int((margins <= 0).sum())
    size = max(wrong, round(share * count))
    if not 0 < size <= count // 2:
        raise TurncoatError(
            f"reference: the choosing network misclassifies {wrong} of {count} training images, and `share` asks for "
            f"{share:g} of them: there are no two subsets of one size; give the network more epochs, or more images"
        )
    order = margins.argsort(stable=True)
    if subset == "correct":
        others = order[size:]
        order = others[torch.randperm(len(others), generator=generator(seed, "subset")).to(others.device)]
    return torch.zeros_like(margins, dtype=torch.bool).index_fill_(0, order[:size], True)
