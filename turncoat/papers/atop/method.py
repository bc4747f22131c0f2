"""AToP: Lin et al., "Adversarial Training on Purification", ICLR 2024 (arXiv 2401.16352): its fine-tuning.

    loss = l1(g(t(x')), target) − gan_weight · mean D(g(t(x'))) + ce_weight · CE(f(g(t(x'))), y)

The purifier g learns, the classifier f stays as it is, bit for bit; x' is FGSM. Paper, code and the authors' answers to
their reviewers differ, so what they differ in are settings, each with its source; README.md beside it has them in one
table, and the arm `atop-authors` sets them as the authors do. With `gan_gradient` a fresh discriminator plays along, by
the loss of pre-training; real is the target of l1. The discriminator of pre-training is not kept.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from turncoat.data.batches import Batch, DeviceSplit
from turncoat.errors import TurncoatError
from turncoat.methods.base import Method, Parts, accuracy, attack, cross_entropy
from turncoat.models.purifier import Pipeline
from turncoat.papers.atop.purifying import DefenceSettings, Game, defended, with_players
from turncoat.settings import AttackSettings


class AtopSettings(DefenceSettings):
    """`purifier` names the pre-trained purifier to start from; `ce_weight` is the paper's lambda, 0.05 on CIFAR-10."""

    purifier: str = Field(description="a name under `pretrained`, of method `purifier`")
    ce_weight: float = Field(0.05, ge=0, description="the paper's lambda: 0.05 on CIFAR-10; the code: 0.1, ImageNette")
    ce_after: int = Field(0, ge=0, description="epochs without the classification loss; the authors' code: 2")
    attack_through: Literal["pipeline", "classifier"] = Field(
        "pipeline", description="what FGSM sees: the whole (the paper's formula), the bare classifier (the code)"
    )
    reconstruct: Literal["clean", "adversarial"] = Field(
        "clean", description="the target of l1; adversarial: the authors' answers, and their code but for one file"
    )
    rebuild: Literal["adversarial", "clean"] = Field(
        "adversarial", description="the image that l1 is of, purified; clean, by the same draws: that one file"
    )
    l1_over: Literal["last", "stages"] = Field(
        "last", description="l1 of the purifier's final image, or summed over its stages (the authors' code)"
    )
    gan_gradient: bool = Field(
        True,
        description="the adversarial term moves the purifier; the code detaches it, so there it does not",
    )
    attack: AttackSettings = AttackSettings(steps=1, relative_step=1.0, start="none")

    @property
    def builds_on(self) -> tuple[str, ...]:
        return (self.purifier, *super().builds_on)


class Atop(Method[AtopSettings]):
    """Fine-tune a pre-trained purifier on adversarial images of the network that it defends."""

    settings_class = AtopSettings

    def prepare(self, network: nn.Module, train: DeviceSplit, seed: int) -> DeviceSplit:
        s = self.settings
        start = self.task.pretrained[s.purifier]
        if not isinstance(start, Pipeline):
            raise TurncoatError(f"params.yaml: purifier: pretrained.{s.purifier} is not of method purifier")
        self.pipeline = Pipeline(s.make_transform(), start.purifier, defended(self, network))
        plays = s.gan_gradient and s.gan_weight > 0
        self.model: nn.Module = Game(self.pipeline, train, seed, s) if plays else self.pipeline
        return train

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        s = self.settings
        attacked = self.model if s.attack_through == "pipeline" else self.pipeline.classifier
        images = attack(attacked, batch, self.task.threat, s.attack)
        draws = batch.generator.get_state()
        stages, hidden = self.pipeline.stages(images, batch.generator)
        stages = stages.float()
        purified = rebuilt = stages[:, -1]
        if s.rebuild == "clean":
            batch.generator.set_state(draws)
            stages = self.pipeline.stages(batch.images, batch.generator)[0].float()
            rebuilt = stages[:, -1]
            # both go through the classifier, whose answers to the second are not needed: what was purified is counted
            purified = torch.cat([purified, rebuilt])
        logits = self.model(purified, purified=True)[: len(images)]
        target = batch.images if s.reconstruct == "clean" else images
        supervised = cross_entropy(logits, batch.labels)
        parts = {
            "train_accuracy": accuracy(logits, batch.labels),
            "l1": (rebuilt.detach() - target).abs().mean(),
            "ce": supervised.detach(),
        }
        # weight 0 instead of no term: the backward pass through the purifier is counted where the classifier's is
        weight = s.ce_weight if batch.epoch >= s.ce_after else 0.0
        loss = s.distance(stages if s.l1_over == "stages" else stages[:, -1:], target) + weight * supervised
        return with_players(self.model, loss, parts, target, rebuilt, hidden, s.gan_weight)

    def deploy(self, model: nn.Module) -> nn.Module:
        pipeline = model.generator if isinstance(model, Game) else model
        assert isinstance(pipeline, Pipeline)
        return Pipeline(pipeline.transform, pipeline.purifier, pipeline.classifier, self.settings.votes)
