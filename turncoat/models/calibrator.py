"""Reverse adversarial examples: a small change to an image that helps a frozen classifier instead of harming it.

Ye et al., "Brain-inspired reverse adversarial examples", 2019 (arXiv 1905.12171), and its follow-up "Light-weight
Calibrator", CVPR 2020. The paper's text could not be had: the formulas below are a reading of its abstract.
"""

from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from turncoat.errors import TurncoatError


class Frozen(nn.Module):
    """A pipeline around a classifier that never changes: no gradients for its weights, batch norm in eval mode always.

    Args:
        classifier: logits out of images in [0, 1], with a `.spec`; its parameters stop asking for gradients.
        epsilon: largest change of a pixel, in (0, 1], or 0 for none.
    """

    kind: str

    def __init__(self, classifier: nn.Module, epsilon: float, **settings: Any) -> None:
        super().__init__()
        if not 0 <= epsilon <= 1:
            raise TurncoatError(f"{self.kind}: epsilon must lie in [0, 1], got {epsilon}; pixels are in [0, 1]")
        self.classifier = classifier.requires_grad_(False)
        self.epsilon = epsilon
        self.spec: Final = {"kind": self.kind, "classifier": classifier.spec, "epsilon": epsilon, **settings}
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch all but the classifier, which stays in eval mode."""
        super().train(mode)
        self.classifier.eval()
        return self

    def calibrate(self, images: Tensor) -> Tensor:
        """The images that the classifier sees: (n, c, h, w) in [0, 1], within epsilon of the given ones."""
        raise TypeError(f"{type(self).__name__} defines no calibrate")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        logits: Tensor = self.classifier(self.calibrate(images))
        return logits


class Calibrated(Frozen):
    """`f(clip(x + E · tanh G(x)))`: a small convolutional network G adds its reverse perturbation.

    Args:
        signed: False gives the follow-up's non-negative perturbation, E · (tanh G(x) + 1) / 2. The follow-up clamps
            (tanh G(x) + 1) / 2 to [0, E] instead, which has no gradient beyond E.
        attention: multiply by a spatial gate in (0, 1) that G predicts as one more channel.
        width, blocks: channels and residual blocks of G.
    """

    kind = "calibrated"

    def __init__(
        self,
        classifier: nn.Module,
        epsilon: float,
        signed: bool = True,
        attention: bool = False,
        width: int = 8,
        blocks: int = 2,
    ) -> None:
        super().__init__(classifier, epsilon, signed=signed, attention=attention, width=width, blocks=blocks)
        self.signed, self.attention = signed, attention
        channels = self.spec["classifier"].get("shape") or self.spec["classifier"]["classifier"]["shape"]
        self.generator = Generator(channels[0], channels[0] + attention, width, blocks)
        if not signed:
            nn.init.constant_(self.generator.bias[: channels[0]], -2.0)  # start near no perturbation

    def before(self, classifier: nn.Module) -> "Calibrated":
        """The same calibrator, weights shared, before another classifier: trained on one, transferred to the other."""
        if classifier is self.classifier:
            return self
        rest = {name: value for name, value in self.spec.items() if name not in ("kind", "classifier")}
        moved = Calibrated(classifier, **rest)
        moved.generator = self.generator
        return moved.train(self.training)

    def perturbation(self, images: Tensor) -> Tensor:
        """The reverse perturbation before clipping: (n, c, h, w), in [-E, E], or in [0, E] unless signed."""
        raw = self.generator(images).float()
        gate: Tensor | float = 1.0
        if self.attention:
            raw, gate = raw[:, :-1], raw[:, -1:].sigmoid()
        direction = raw.tanh() if self.signed else (raw.tanh() + 1) / 2
        change: Tensor = self.epsilon * direction * gate
        return change

    def calibrate(self, images: Tensor) -> Tensor:
        return (images + self.perturbation(images)).clamp(0, 1)


class PseudoLabelled(Frozen):
    """`f(clip(x − ε · sign ∇ₓ CE(f(x), argmax f(x))))`: one step towards what the classifier believes, nothing learnt.

    The sign has no gradient, so an attack's gradient through this pipeline is exact almost everywhere without it.
    """

    kind = "pseudo_labelled"

    def calibrate(self, images: Tensor) -> Tensor:
        return against_loss(self.classifier, images, None, self.epsilon)


def against_loss(classifier: nn.Module, images: Tensor, labels: Tensor | None, epsilon: float) -> Tensor:
    """One step of `epsilon` down the cross-entropy's gradient: towards `labels` (n,), or the classifier's own answer.

    With true labels this is an oracle: it bounds what a perturbation of one step can gain, and can never be deployed.

    Returns: (n, c, h, w) in [0, 1]; a gradient that flows back treats the step as a constant.
    """
    with torch.enable_grad():
        seen = images.detach().requires_grad_()
        logits = classifier(seen).float()
        labels = logits.argmax(1) if labels is None else labels
        (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), seen)
    return (images - epsilon * gradient.sign()).clamp(0, 1)


class Generator(nn.Module):
    """G: a small residual network at the image's own resolution, without normalisation: the same in training and use.

    Its last layer starts at zero, so that an untrained calibrator leaves the classifier as it is.
    """

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
            )
            for _ in range(blocks)
        )
        self.weight = nn.Parameter(torch.zeros(outputs, width, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images - 0.5)
        for block in self.blocks:
            features = features + block(features)
        return functional.conv2d(functional.relu(features), self.weight, self.bias, padding=1)
