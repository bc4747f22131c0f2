"""RAT: retraining on universal perturbations, Wang et al., Knowledge-Based Systems 2021 (arXiv 2008.07838).

One perturbation v_t for each target class t, the same for all images, made on the network to be retrained from a very
small part S of the training images. Then, with the true labels,

    min CE over {(x, y)} and {(clip(x + v_t), y)},   x of S, t drawn for each x among the classes other than y

The paper's text could not be had; how v_t is made and that both halves count alike is a reading. RAT makes its
perturbations from S itself rather than from the study's `perturb` stage, whose images are not those of S.

Controls are other values of `perturbation`, on the same S: `none` (clean fine-tuning), `noise` (random signs),
`chessboard`, `attack` (each image attacked on its own: FGSM or PGD training, by `attack`), and `universal`, which is
universal adversarial training (Shafahi et al., AAAI 2020, arXiv 1811.11304): one untargeted perturbation that rises
with each training step.
"""

from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from turncoat.attacks import Threat, attacked, input_gradient
from turncoat.attacks.losses import objective
from turncoat.data.batches import as_float
from turncoat.errors import TurncoatError
from turncoat.methods.base import (
    AdversarialSettings,
    Batch,
    DeviceSplit,
    Method,
    Parts,
    accuracy,
    attack,
    cross_entropy,
)
from turncoat.methods.universal import UniversalSettings, class_perturbations, stratified
from turncoat.randomness import generator
from turncoat.settings import SHARES, Start


class RatSettings(AdversarialSettings):
    """Radii are in units of the data set's epsilon. An epoch is a pass over S; over all images with `beside: train`."""

    renamed: ClassVar = {"epsilon": SHARES["epsilon"]}

    start: Start | None = "baseline"
    subset: int | None = Field(100, gt=0, description="|S|, images that perturbations are made from; None: all")
    perturbation: Literal["targeted", "universal", "noise", "chessboard", "attack", "none"] = "targeted"
    targets: list[int] | None = Field(None, min_length=1, description="classes to perturb towards; None: all")
    beside: Literal["subset", "train", "nothing"] = Field("subset", description="clean images beside the perturbed")
    radius: float = Field(1.0, gt=0, description="of the universal perturbations, in epsilons")
    refresh: float = Field(0.0, ge=0, description="their sign step at each training step, in radii; 0: static")
    making: UniversalSettings = UniversalSettings()

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        if self.perturbation == "universal" and self.refresh == 0:
            raise ValueError("perturbation: universal grows in training only: set refresh, the size of a step")
        if self.refresh and self.perturbation not in ("targeted", "universal"):
            raise ValueError(f"refresh: perturbation {self.perturbation} is not made from a network; leave refresh out")
        if self.targets is not None and self.perturbation != "targeted":
            raise ValueError(f"targets: perturbation {self.perturbation} has none; leave targets out")
        return self


class Rat(Method[RatSettings]):
    """Retraining on targeted universal perturbations."""

    settings_class = RatSettings
    divides = True

    @property
    def attack_steps(self) -> int:
        return super().attack_steps if self.settings.perturbation == "attack" else 0

    def prepare(self, network: nn.Module, train: DeviceSplit, seed: int) -> DeviceSplit:
        epsilon = self.task.threat.epsilon * self.settings.radius
        if self.task.threat.norm != "linf" or epsilon > 1:
            raise TurncoatError(
                "method rat: universal perturbations are sign patterns of linf radius at most 1, "
                f"got {self.task.threat.norm} and {epsilon:g}; choose another data set or lower the arm's radius"
            )
        wrong = [target for target in self.settings.targets or [] if not 0 <= target < self.task.classes]
        if wrong:
            raise TurncoatError(f"method rat: targets {wrong} are no classes; there are 0...{self.task.classes - 1}")
        self.radius = epsilon
        self.subset = stratified(train, self.settings.subset, seed)
        self.targets = torch.tensor(self.settings.targets or range(self.task.classes), device=train.labels.device)
        perturbations = self._first(network, seed)
        if self.settings.perturbation == "targeted":
            allowed = (
                self.targets[None] != torch.arange(self.task.classes, device=self.targets.device)[:, None]
            ).float()
            allowed[allowed.sum(1) == 0] = 1  # the one target's own images
        else:
            allowed = torch.ones(self.task.classes, max(1, len(perturbations)), device=self.targets.device)
        self.allowed = allowed  # (classes, perturbations): who may meet which
        self.model = Retrained(network, perturbations)
        return train if self.settings.beside == "train" else self.subset

    def _first(self, network: nn.Module, seed: int) -> Tensor:
        """The perturbations to start with: (p, c, h, w)."""
        images = self.subset.images
        shape = tuple(images.shape[1:])
        match self.settings.perturbation:
            case "targeted":
                threat = Threat("linf", self.radius)
                making = self.settings.making
                return class_perturbations(network, self.subset, threat, self.targets.tolist(), making, seed)
            case "universal":
                return torch.zeros(1, *shape, device=images.device)
            case "noise":  # as many patterns as there would be targets
                source = generator(seed, "noise")
                signs = torch.randint(0, 2, (self.task.classes, *shape), generator=source) * 2 - 1
                return signs.to(images.device, torch.float32) * self.radius
            case "chessboard":
                rows, columns = torch.arange(shape[1])[:, None], torch.arange(shape[2])
                board = ((rows + columns) % 2 * 2 - 1).to(images.device, torch.float32).expand(shape)
                return torch.stack([board, -board]) * self.radius
            case _:
                return torch.zeros(0, *shape, device=images.device)

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        clean = batch
        if self.settings.beside == "train":
            chosen = torch.randint(
                len(self.subset), batch.labels.shape, generator=batch.generator, device=batch.labels.device
            )
            batch = replace(batch, images=as_float(self.subset.images[chosen]), labels=self.subset.labels[chosen])
        if self.settings.perturbation == "none":
            inputs, labels = clean.images, clean.labels
        else:
            inputs, labels = self.perturbed(batch), batch.labels
            if self.settings.beside != "nothing":  # one pass: both halves share batch norm's statistics
                inputs, labels = torch.cat([inputs, clean.images]), torch.cat([labels, clean.labels])
        logits = self.model(inputs)
        return cross_entropy(logits, labels), {"train_accuracy": accuracy(logits, labels)}

    def perturbed(self, batch: Batch) -> Tensor:
        """The batch's images, each with a perturbation: (n, c, h, w)."""
        if self.settings.perturbation == "attack":
            return attack(self.model, batch, self.task.threat, self.settings.attack)
        bank = self.model.get_buffer("perturbations")
        # torch.multinomial's own draw, less its checks of the weights, for which the host would wait for the device
        weights = self.allowed[batch.labels]
        chosen = (weights / torch.empty_like(weights).exponential_(generator=batch.generator)).argmax(1)
        if self.settings.refresh:
            self._refresh(bank, chosen, batch)
        return (batch.images + bank[chosen]).clamp(0, 1)

    def _refresh(self, bank: Tensor, chosen: Tensor, batch: Batch) -> None:
        """One sign step of each perturbation along the mean gradient of the images that drew it."""
        aims = self.targets[chosen] if self.settings.perturbation == "targeted" else None
        with attacked(self.model, generator=batch.generator), torch.no_grad():
            images = (batch.images + bank[chosen]).clamp(0, 1)
            gradient, _, _ = input_gradient(self.model, images, objective("ce"), batch.labels, aims, None)
            total = torch.zeros_like(bank).index_add_(0, chosen, gradient)
            bank.add_(total.sign_(), alpha=self.settings.refresh * self.radius).clamp_(-self.radius, self.radius)

    def deploy(self, model: nn.Module) -> nn.Module:
        return model.get_submodule("network")


class Retrained(nn.Module):
    """The network in training with its perturbations (p, c, h, w), which a checkpoint therefore holds."""

    perturbations: Tensor

    def __init__(self, network: nn.Module, perturbations: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("perturbations", perturbations)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        logits: Tensor = self.network(images)
        return logits
