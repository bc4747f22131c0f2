"""AdvAmd: Yu, Chen, Gan, "Adversarial Amendment is the Only Force Capable of Transforming an Enemy into a Friend",
IJCAI 2023. Reimplemented from the abstract: the paper's formulas could not be read, so each unknown is a setting.

The aim is accuracy on benign images. Three parts: mediate samples between each image and its adversarial one, batch
norm of their own for the perturbed images, and a loss that adjusts the learning ratio to attack vulnerability:

    x'   = attack on f with its auxiliary batch norm                     x_m = x + m (x' − x), m in `mediates`
    v    = clip(p_y(x) − p_y(x'), 0, 1), a constant                      w = (1 − v)^gamma | v^gamma | 1
    loss = mean CE(x) + a · mean w CE(x') + b · mean w mean_m CE(x_m)    deployed: the main batch norm only

With `mediates: []` and `weighting: uniform` this is AdvProp (Xie et al., CVPR 2020), whose attack is the default here:
5 steps of 1/255 within 4/255 where epsilon is 8/255. `batch_norm: joint` is training on both with one batch norm;
`perturbation: noise` is the placebo, uniform noise in the same ball in place of an attack. For segmentation and
detection CE is the network's own loss of each image, and p_y is exp(−loss); `weight_by: pixel` weighs each pixel.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from turncoat.attacks import Threat
from turncoat.data.batches import DeviceSplit
from turncoat.data.targets import VOID
from turncoat.methods.base import AdversarialSettings, Batch, Method, Parts, attack, losses, scores
from turncoat.models.dual_norm import Route, branch_gap, check_splits, extract, split_norms
from turncoat.settings import AttackSettings

Share = Annotated[float, Field(ge=0, le=1)]
Weighting = Literal["protect", "focus", "uniform"]


class AdvAmdSettings(AdversarialSettings):
    """Every part of the method, and every reading of it."""

    mediates: list[Share] | Literal["random"] = Field([0.5], description="m of x + m (x' − x), or one at random")
    path: Literal["pixels", "iterates"] = Field("pixels", description="x_m on the line to x', or an attack's iterate")
    mediate_bn: Literal["main", "auxiliary", "own"] = "auxiliary"
    batch_norm: Literal["full", "statistics", "affine", "joint"] = Field(
        "full", description="what the branches have of their own; joint: no branches"
    )
    weighting: Weighting = Field("protect", description="learn less from vulnerable images, or more, or alike")
    gamma: float = Field(1.0, ge=0)
    a: float = Field(1.0, ge=0, description="weight of the adversarial loss")
    b: float = Field(1.0, ge=0, description="weight of the mediate loss")
    perturbation: Literal["attack", "noise"] = "attack"
    weight_by: Literal["image", "pixel"] = Field("image", description="whose loss says how vulnerable; segmentation")
    attack: AttackSettings = AttackSettings(steps=5, radius=0.5, relative_step=0.125)


class AdvAmd(Method[AdvAmdSettings]):
    """Adversarial amendment; AdvProp and joint training as settings."""

    settings_class = AdvAmdSettings
    dense = True
    divides = True
    selection = "validation_clean"

    def check(self, network: nn.Module) -> None:
        if self.settings.batch_norm != "joint":
            check_splits(network, self.settings.batch_norm)
        if self.settings.weight_by == "pixel" and not hasattr(network, "pixel_losses"):
            raise ValueError("weight_by: pixel needs a network for segmentation; choose image")

    def prepare(self, network: nn.Module, train: DeviceSplit, seed: int) -> DeviceSplit:
        self.model, self.route = network, Route()
        if self.settings.batch_norm != "joint":
            own = ["own"] if self.settings.mediate_bn == "own" and self.settings.mediates else []
            self.route = split_norms(network, ["main", "auxiliary", *own], self.settings.batch_norm)
        return train

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        if not self.settings.a and not (self.settings.b and self.settings.mediates):  # benign images alone count
            outputs = self.model(batch.images)
            return losses(self.model, outputs, batch.labels).mean(), scores(self.model, outputs, batch.labels)
        adversarial, mediates = self._perturb(batch)
        logits = self._forward(
            [("main", batch.images), ("auxiliary", adversarial), *((self.settings.mediate_bn, m) for m in mediates)]
        )
        each, mean = self._measured(batch)
        found = torch.stack([each(part) for part in logits])
        benign, attacked, between = found[0], found[1], found[2:]
        weight = learning_ratio(benign, attacked, self.settings.weighting, self.settings.gamma)
        parts = {
            **scores(self.model, logits[0], batch.labels),
            "benign": mean(benign).detach(),
            "adversarial": mean(attacked).detach(),
            "learning_ratio": mean(weight),
        }
        total = mean(benign) + self.settings.a * mean(weight * attacked)
        if mediates:
            total = total + self.settings.b * mean(weight * between.mean(0))
            parts["mediate"] = mean(between.mean(0)).detach()
        if self.settings.batch_norm in ("full", "statistics"):
            parts["branch_gap"] = branch_gap(self.model, "auxiliary")
        return total, parts

    def _measured(self, batch: Batch) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The loss of what is weighed, an image or a pixel, out of a part's outputs; and its mean over a batch."""
        if self.settings.weight_by == "pixel":
            network: Any = self.model
            return (
                lambda outputs: network.pixel_losses(outputs, batch.labels),
                lambda each: network.averaged(each * (batch.labels != VOID), batch.labels).mean(),
            )
        return lambda outputs: losses(self.model, outputs, batch.labels), Tensor.mean

    def deploy(self, model: nn.Module) -> nn.Module:
        """The network of the baseline's size: main batch norm, nothing else."""
        return model if self.settings.batch_norm == "joint" else extract(model)

    def _perturb(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Adversarial images, and a list of mediates, each (n, c, h, w)."""
        settings, images, threat = self.settings, batch.images, self.task.threat
        if settings.perturbation == "noise":
            radius = threat.epsilon * settings.attack.radius
            adversarial = Threat(threat.norm, radius).random_start(images, batch.generator) if radius else images
            path = [images, adversarial]
        else:
            recorded = _Recorded(self.model)
            with self.route(auxiliary=len(images)):
                attacked = recorded if settings.path == "iterates" else self.model
                adversarial = attack(attacked, batch, threat, settings.attack)
            path = [*(recorded.seen or [images]), adversarial]
        if settings.mediates == "random":
            at = torch.rand(len(images), 1, 1, 1, generator=batch.generator, device=images.device)
            return adversarial, [along(path, at)]
        return adversarial, [along(path, images.new_full((len(images), 1, 1, 1), share)) for share in settings.mediates]

    def _forward(self, parts: Sequence[tuple[str, Tensor]]) -> list[Tensor]:
        """Logits of each part, in one pass: parts of one branch stand together and share its batch statistics."""
        branches = list(dict.fromkeys(name for name, _ in parts))
        order = sorted(range(len(parts)), key=lambda place: branches.index(parts[place][0]))
        size = len(parts[0][1])
        rows = {name: size * sum(part == name for part, _ in parts) for name in branches}
        with self.route(**rows):
            logits = self.model(torch.cat([parts[place][1] for place in order])).split(size)
        return [logits[order.index(place)] for place in range(len(parts))]


class _Recorded(nn.Module):
    """A network that remembers what it was asked: the iterates of an attack, the start first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[Tensor] = []
        if own := getattr(model, "losses", None):
            self.losses = own

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach())
        logits: Tensor = self.model(images)
        return logits


def along(path: Sequence[Tensor], share: Tensor) -> Tensor:
    """The point at `share` (n, 1, 1, 1) in [0, 1] of the way along a path of images: linear between its corners."""
    place = share * (len(path) - 1)
    point = path[0]
    for step, (start, end) in enumerate(pairwise(path)):
        point = point + (place - step).clamp(0, 1) * (end - start)
    return point.clamp(0, 1)


def learning_ratio(benign: Tensor, attacked: Tensor, weighting: Weighting, gamma: float) -> Tensor:
    """Weight of each perturbed example, (n,) in [0, 1], detached, from two losses an example.

    The losses are negative log-likelihoods, so exp(−loss) is the probability of the right answer; a detector's or a
    segmenter's loss of each image can be given in its place.
    """
    vulnerability = (torch.exp(-benign.detach()) - torch.exp(-attacked.detach())).clamp(0, 1)
    if weighting == "uniform":
        return torch.ones_like(vulnerability)
    return (1 - vulnerability if weighting == "protect" else vulnerability) ** gamma
