"""Reverse adversarial examples: Ye et al., "Brain-inspired reverse adversarial examples", 2019 (arXiv 1905.12171).

The classifier f is never touched. A small network G in front of it learns the change that f needs,

    x' = clip(x + E · tanh G(x)),

from training images under the shifts `seen` (brightness, blur, ...) or through a quantised f. Ways to train G:

    supervised    CE(f(x'), y)
    distil        KL(softmax f(x°) || softmax f(x')),  x° the image before the shift, f in full precision
    adversarial   two discriminators, one on f's last features and one on pixels, tell x' from x° (the follow-up,
                  "Light-weight Calibrator", CVPR 2020; no labels are used)
    denoise       mean (x' − x°)²: a comparator of the same size that knows nothing of f

The paper's text could not be had; the formula and what is `seen` are readings of its abstract. The classifier's weights
and batch norm statistics are compared by checksum with those before training each time the pipeline is deployed.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from turncoat.attacks.losses import kl
from turncoat.data.batches import Batch, DeviceSplit
from turncoat.errors import TurncoatError
from turncoat.methods.base import Method, Parts, accuracy, cross_entropy
from turncoat.methods.shifting import ShiftingSettings, rounded, shifted
from turncoat.models import tensor_digest
from turncoat.models.calibrator import Calibrated
from turncoat.training import initialised

ADAM: dict[str, Any] = {"optimizer": "adam", "lr": 3e-3, "weight_decay": 0.0}


class ReverseSettings(ShiftingSettings):
    """`bound` is the paper's E: how far a reverse perturbation may change a pixel of [0, 1]."""

    renamed: ClassVar = {"epsilon": "bound now, in pixels of [0, 1]"}

    mode: Literal["supervised", "distil", "adversarial", "denoise"] = "supervised"
    bound: float = Field(32 / 255, ge=0, le=1)
    signed: bool = Field(True, description="false: the follow-up's non-negative perturbation")
    attention: bool = Field(False, description="a learnt gate decides where the perturbation acts")
    width: int = Field(8, gt=0, description="channels of G")
    blocks: int = Field(2, ge=0, description="residual blocks of G")
    pixels: float = Field(0.1, ge=0, description="adversarial: weight of the pixel discriminator; features have 1")
    training: dict[str, Any] = Field({}, validate_default=True, description="departures; those of `ADAM` are its start")

    @field_validator("training")
    @classmethod
    def _adam(cls, departures: dict[str, Any]) -> dict[str, Any]:
        return ADAM | departures


class Calibrating(nn.Module):
    """A pipeline in training: what it made of the last batch, and the discriminators, which a checkpoint then holds."""

    def __init__(self, pipeline: Calibrated) -> None:
        super().__init__()
        self.pipeline, self.discriminators = pipeline, nn.ModuleDict()
        self.calibrated: Tensor
        self.features: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        self.calibrated = self.pipeline.calibrate(images)
        logits, self.features = with_features(self.pipeline.classifier, self.calibrated)
        return logits


class Reverse(Method[ReverseSettings]):
    """A calibrator before a frozen classifier."""

    model: Calibrating
    settings_class = ReverseSettings
    selection = "epoch"  # nothing on the validation split measures shifts: the last epoch is deployed

    def check(self, network: nn.Module) -> None:
        if not any(isinstance(module, nn.Linear) for module in network.modules()):
            raise ValueError(f"{type(network).__name__} holds no Linear layer, whose inputs are taken as its features")

    def prepare(self, network: nn.Module, train: DeviceSplit, seed: int) -> DeviceSplit:
        s, device = self.settings, train.labels.device
        self.full = network.eval().requires_grad_(False)
        self.deployed = rounded(network, train, s.quantised, seed)
        through = self.full if s.quantised and s.quantised.through == "full" else self.deployed
        pipeline = initialised(
            seed, lambda: Calibrated(through, s.bound, s.signed, s.attention, s.width, s.blocks).to(device)
        )
        assert isinstance(pipeline, Calibrated)
        self.model = Calibrating(pipeline)
        if s.mode == "adversarial":
            with torch.no_grad():
                _, features = with_features(through, train.floats(0, 1))
            players = initialised(seed, lambda: discriminators(features.shape[1], train.images.shape[1]))
            assert isinstance(players, nn.ModuleDict)
            self.model.discriminators = players.to(device)
        self.before = [tensor_digest(module.state_dict()) for module in (self.full, self.deployed)]
        return train

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        logits = self.model(shifted(batch, self.settings))
        parts = {"train_accuracy": accuracy(logits, batch.labels)}
        made = self.model.calibrated
        match self.settings.mode:
            case "supervised":
                return cross_entropy(logits, batch.labels), parts
            case "distil":
                with torch.no_grad():
                    familiar = self.full(batch.images).float().log_softmax(1)
                return kl(familiar)(logits, batch.labels, None).mean(), parts
            case "denoise":
                return functional.mse_loss(made, batch.images), parts
            case "adversarial":
                players = self.model.discriminators
                with torch.no_grad():
                    _, familiar = with_features(self.full, batch.images)
                push, told = tell_apart(players["features"], familiar, self.model.features)
                pixel_push, pixel_told = tell_apart(players["pixels"], batch.images, made)
                parts |= {"features": told.detach(), "pixels": pixel_told.detach()}
                return push + self.settings.pixels * pixel_push + told + pixel_told, parts

    def deploy(self, model: nn.Module) -> nn.Module:
        if self.before != [tensor_digest(module.state_dict()) for module in (self.full, self.deployed)]:
            raise TurncoatError("method reverse: the frozen classifier changed in training: a fault of the method")
        assert isinstance(model, Calibrating)
        return model.pipeline.before(self.deployed)


def with_features(classifier: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, classes), and what the last linear layer makes them of: (n, features)."""
    last = [module for module in classifier.modules() if isinstance(module, nn.Linear)][-1]
    caught: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        return classifier(images), caught[0]
    finally:
        hook.remove()


def discriminators(features: int, channels: int) -> nn.ModuleDict:
    """Real or calibrated: a score for features (n, features), scores place by place for images (n, c, h, w)."""
    return nn.ModuleDict(
        {
            "features": nn.Sequential(nn.Linear(features, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)),
            "pixels": nn.Sequential(
                nn.Conv2d(channels, 32, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 32, 3, 2, 1), nn.LeakyReLU(0.2),
                nn.Conv2d(32, 1, 1),
            ),
        }
    )  # fmt: skip


def tell_apart(discriminator: nn.Module, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """Losses of the two players of a GAN (non-saturating), whose gradients do not mix: one optimiser serves both.

    Returns: the generator's, whose gradient reaches `made` alone; the discriminator's, which reaches its weights alone.
    """
    on_real, on_made = discriminator(torch.cat([real, made.detach()])).float().chunk(2)
    told = functional.softplus(-on_real).mean() + functional.softplus(on_made).mean()
    leaf = made.detach().requires_grad_()
    fooled = functional.softplus(-discriminator(leaf).float()).mean()
    (slope,) = torch.autograd.grad(fooled, leaf)
    return fooled.detach() + ((made - made.detach()) * slope).sum(), told
