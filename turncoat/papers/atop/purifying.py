"""AToP before its fine-tuning: a purifier trained to rebuild images (Lin et al., ICLR 2024, arXiv 2401.16352).

    purifier       l1(g(t(x)), x) − gan_weight · mean D(g(t(x)))
    discriminator  mean max(0, 1 − D(x)) + mean max(0, 1 + D(g(t(x))))        (hinge)

Both are one scalar, so that one backward pass and one optimiser serve the two players: the discriminator's term sees
detached images, the purifier's term is the slope of −mean D at its images. That slope is scaled to `gan_weight` times
the length of l1's gradient, batch by batch (as in Esser et al., CVPR 2021, arXiv 2012.09841), so that one weight fits
every size of image; `gan_scale: fixed` leaves it as it is, as the authors' code does. A purifier of several stages has
its l1 taken at each.

What is deployed is f(g(t(x))) with the frozen classifier f: an arm of this method is AToP without fine-tuning.
"""

from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from turncoat.data.batches import Batch, DeviceSplit
from turncoat.errors import TurncoatError
from turncoat.methods.base import Method, Parts
from turncoat.models.purifier import Discriminator, Pipeline, Purifier
from turncoat.models.transforms import Transform
from turncoat.settings import ArmSettings
from turncoat.training import initialised

# The paper's optimiser for purifiers; its rate, 1e-4, is for a pre-trained one and longer schedules.
ADAM: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3, "betas": [0.5, 0.999], "weight_decay": 0.0}


class DefenceSettings(ArmSettings):
    """What a defended network is made of, besides its purifier."""

    transform: Literal["none", "rt1", "rt2", "rt3"] = "rt2"
    rate: float = Field(0.25, gt=0, lt=1, description="share of the 8×8 patches that a mask hides")
    noise: float = Field(0.25, ge=0, description="standard deviation in rt2 and rt3, for images in [0, 1]")
    shared_mask: bool = Field(False, description="one mask a batch, as in the authors' code, instead of one an image")
    start: Literal["baseline"] = "baseline"
    votes: int = Field(1, ge=1, description="draws whose probabilities are averaged at test time")
    classifier: str = Field("baseline", description="`baseline`, or a name under `pretrained`")
    gan_weight: float = Field(
        0.3, ge=0, description="of the adversarial term, see gan_scale; 0: no discriminator. The authors' code: 1"
    )
    gan_scale: Literal["gradient", "fixed"] = Field(
        "gradient", description="gan_weight is the term's gradient / that of l1; fixed: its weight (the authors' code)"
    )
    gan_mask: bool = Field(False, description="the discriminator sees the mask too, as in the authors' code")
    gan_width: int = Field(16, gt=0, description="channels of the discriminator's first layer; the authors' code: 64")
    l1_range: Literal["0..1", "-1..1"] = Field(
        "0..1", description="of the images in l1; the authors' code has -1..1, which doubles it beside the other terms"
    )
    training: dict[str, Any] = Field({}, validate_default=True, description="departures; those of `ADAM` are its start")

    @field_validator("training")
    @classmethod
    def _as_published(cls, departures: dict[str, Any]) -> dict[str, Any]:
        return ADAM | departures

    @property
    def builds_on(self) -> tuple[str, ...]:
        return () if self.classifier == "baseline" else (self.classifier,)

    def make_transform(self) -> Transform:
        """The transform that these settings describe."""
        return Transform(self.transform, self.rate, self.noise, self.shared_mask)

    def distance(self, made: Tensor, target: Tensor) -> Tensor:
        """l1 of what some stages made, (n, stages, c, h, w), to their target (n, c, h, w), summed over the stages."""
        length = 2 if self.l1_range == "-1..1" else 1
        return length * (made - target[:, None]).abs().mean((0, 2, 3, 4)).sum()


class PurifierSettings(DefenceSettings):
    """The authors' purifier is `inpainter`, 48 wide; `gated` and `unet` are lighter, `autoencoder` their other kind."""

    network: Literal["gated", "unet", "autoencoder", "inpainter"] = "gated"
    width: int = Field(32, gt=0, description="channels at full resolution")


class Game(nn.Module):
    """A generator (a purifier, or the pipeline around one) and its discriminator, as one module to train."""

    def __init__(self, generator: nn.Module, train: DeviceSplit, seed: int, settings: DefenceSettings) -> None:
        super().__init__()
        shape, s = train.images.shape[1:], settings
        self.generator, self.scaled = generator, s.gan_scale == "gradient"
        discriminator = initialised(seed, lambda: Discriminator(shape, s.gan_width, s.gan_mask))
        self.discriminator = discriminator.to(train.images.device)

    def forward(self, *inputs: Tensor, **options: Any) -> Tensor:
        """What the generator makes."""
        made: Tensor = self.generator(*inputs, **options)
        return made

    def hinge(self, real: Tensor, made: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The adversarial terms: the generator's push, its hinge loss (detached), the discriminator's loss; scalars.

        The push is linear in `made`; its gradient there is that of −mean D(made), where scaled as long as that of an l1
        mean.

        Args:
            real, made: (n, c, h, w) in [0, 1]. masks: (n, 1, h, w), 1 where something was hidden.
        """
        both = self.discriminator(torch.cat([real, made.detach()]), masks.repeat(2, 1, 1, 1))
        on_real, on_made = both.float().chunk(2)
        leaf = made.detach().requires_grad_()
        fooled = -self.discriminator(leaf, masks).float().mean()
        (slope,) = torch.autograd.grad(fooled, leaf)
        push = (made * slope).sum()
        if self.scaled:
            push = push / (slope.norm() * made.numel() ** 0.5).clamp_min(1e-12)
        return push, fooled.detach(), (1 - on_real).relu().mean() + (1 + on_made).relu().mean()


class _Stages(nn.Module):
    """A purifier called for what each of its stages makes."""

    def __init__(self, purifier: Purifier) -> None:
        super().__init__()
        self.purifier = purifier

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        return self.purifier.outputs(images, masks)


class PurifierTraining(Method[PurifierSettings]):
    """Train a purifier from scratch to rebuild images; `best` is the one whose images the classifier reads best."""

    settings_class = PurifierSettings
    selection = "validation_clean"

    def prepare(self, network: nn.Module, train: DeviceSplit, seed: int) -> DeviceSplit:
        s, shape = self.settings, train.images.shape[1:]
        self.transform, self.classifier = s.make_transform(), defended(self, network)
        stages = initialised(seed, lambda: _Stages(Purifier(s.network, shape, s.width))).to(train.images.device)
        self.model: nn.Module = Game(stages, train, seed, s) if s.gan_weight else stages
        return train

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        noisy, masks = self.transform(batch.images, batch.generator)
        hidden = masks[:, 0]  # the masks of rt3 are alike: one of them will do
        stages = self.model(noisy, hidden).float()
        made = stages[:, -1]
        loss = self.settings.distance(stages, batch.images)
        parts = {"l1": (made.detach() - batch.images).abs().mean()}
        return with_players(self.model, loss, parts, batch.images, made, hidden, self.settings.gan_weight)

    def deploy(self, model: nn.Module) -> nn.Module:
        stages = model.generator if isinstance(model, Game) else model
        assert isinstance(stages, _Stages)
        return Pipeline(self.transform, stages.purifier, self.classifier, self.settings.votes)


def with_players(
    model: nn.Module, loss: Tensor, parts: Parts, real: Tensor, made: Tensor, masks: Tensor, weight: float
) -> tuple[Tensor, Parts]:
    """`loss` and `parts` with the terms of both players added, where `model` is a game."""
    if not isinstance(model, Game):
        return loss, parts
    push, fooled, told = model.hinge(real, made, masks)
    return loss + weight * push + told, parts | {"generator": fooled, "discriminator": told.detach()}


def defended(method: Method[Any], network: nn.Module) -> nn.Module:
    """The classifier that a defence stands before, on the device: the baseline, or the one that the arm names."""
    name = method.settings.classifier
    if name == "baseline":
        return network
    classifier: nn.Module = method.task.pretrained[name]
    if isinstance(classifier, Pipeline):
        raise TurncoatError(f"params.yaml: classifier: {name}: a classifier is wanted, not a purifier before one")
    return classifier
