"""AToP: Lin et al., "Adversarial Training on Purification", ICLR 2024 (arXiv 2401.16352): its fine-tuning.

    loss = l1(g(t(x')), target) − gan_weight · mean D(g(t(x'))) + ce_weight · CE(f(g(t(x'))), y)

The purifier g learns, the classifier f stays as it is, bit for bit; x' is FGSM. Paper and code differ in three things,
so each is a setting: `attack_through` the whole pipeline (the paper's formula) or the bare classifier (the code),
`reconstruct` the clean or the adversarial image, `gan_gradient` on or off. With it on a fresh discriminator plays along
(its loss is that of pre-training, with x as the real image): the one of pre-training is not kept.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from turncoat.data.batches import Batch, DeviceSplit
from turncoat.errors import TurncoatError
from turncoat.methods.base import Method, Parts, accuracy, attack, cross_entropy
from turncoat.models.purifier import Pipeline
from turncoat.papers.atop.purifying import DefenceSettings, Game, adversarial, defended
from turncoat.settings import AttackSettings


class AtopSettings(DefenceSettings):
    """`purifier` names the pre-trained purifier to start from; `ce_weight` is the paper's lambda, 0.05 on CIFAR-10."""

    purifier: str = Field(description="a name under `pretrained`, of method `purifier`")
    ce_weight: float = Field(0.05, ge=0)
    attack_through: Literal["pipeline", "classifier"] = "pipeline"
    reconstruct: Literal["clean", "adversarial"] = Field("clean", description="the target; the input is adversarial")
    gan_gradient: bool = Field(True, description="keep the adversarial term of pre-training")
    attack: AttackSettings = AttackSettings(steps=1, step=1.0, start="none")

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
        self.model: nn.Module = Game(self.pipeline, train, seed) if s.gan_gradient and s.gan_weight else self.pipeline
        return train

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        s = self.settings
        attacked = self.model if s.attack_through == "pipeline" else self.pipeline.classifier
        images = attack(attacked, batch, self.task.threat, s.attack)
        purified = self.pipeline.purify(images, batch.generator).float()
        logits = self.model(purified, purified=True)
        rebuilt = (purified - (batch.images if s.reconstruct == "clean" else images)).abs().mean()
        supervised = cross_entropy(logits, batch.labels)
        parts = {
            "train_accuracy": accuracy(logits, batch.labels),
            "l1": rebuilt.detach(),
            "ce": supervised.detach(),
        }
        loss = rebuilt + s.ce_weight * supervised
        return adversarial(self.model, loss, parts, batch.images, purified, s.gan_weight)

    def deploy(self, model: nn.Module) -> nn.Module:
        pipeline = model.generator if isinstance(model, Game) else model
        assert isinstance(pipeline, Pipeline)
        return Pipeline(pipeline.transform, pipeline.purifier, pipeline.classifier, self.settings.votes)
