"""Networks as an attacker sees them: averaged over their randomness, or with a gradient where there is none.

Each wraps a network into a network, so that any attack takes it: `apgd(eot(model, 20), images, labels, threat, ...)`.
EOT: Athalye et al. 2018a (arXiv 1707.07397); BPDA: Athalye et al. 2018b (arXiv 1802.00420).
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .engine import reseeded

AVERAGES = ("loss", "logits", "probabilities")


class eot(nn.Module):
    """A random network averaged over `draws` passes.

    With `average="loss"` a gradient attack ascends the mean of the loss over the draws, as Athalye et al. and
    AutoAttack's version for random networks do (`input_gradient` sees to that); whatever else looks at the logits, a
    score-based attack say, meets their mean. With "logits" everything goes by the mean logits: the loss of a mean, not
    the mean of the loss. With "probabilities" everything goes by the logarithm of the mean probabilities, so that the
    cross-entropy drives down the mean probability of the true class: draws that are lost already weigh little. No
    average is always the strongest (docs/random-networks.md). With one draw all three are the plain attack.

    `each` keeps the logits of the single draws of the last pass, (draws, n, k): an attack lets an image go when it has
    fallen in every one of them, for in a single one it may have been luck.
    """

    def __init__(
        self,
        model: nn.Module,
        draws: int = 20,
        *,
        at_once: bool = True,
        average: Literal["loss", "logits", "probabilities"] = "loss",
    ) -> None:
        """With `at_once` all draws of a batch are one forward pass. Else they come one after the other and are drawn
        again, alike, in the backward pass: the memory of one draw, for one forward pass more.

        Raises:
            ValueError: fewer than one draw, or another `average`.
        """
        super().__init__()
        if draws < 1:
            raise ValueError(f"draws: {draws!r} is not allowed; give at least 1")
        if average not in AVERAGES:
            raise ValueError(f"average: {average!r} is unknown; choose one of {', '.join(AVERAGES)}")
        self.model, self.draws, self.at_once, self.average = model, draws, at_once, average
        self.each: Tensor | None = None
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """The mean logits, or the logarithms of the mean probabilities: (n, c, h, w) to (n, k)."""
        drawn = self.drawn(images)
        if self.average == "probabilities":
            return drawn.float().log_softmax(2).logsumexp(0) - math.log(self.draws)
        return drawn.mean(0)

    def drawn(self, images: Tensor) -> Tensor:
        """The logits of each draw: (n, c, h, w) to (draws, n, k)."""
        if self.at_once:
            logits: Tensor = self.model(images.repeat(self.draws, *[1] * (images.dim() - 1)))
            logits = logits.view(self.draws, len(images), -1)
        elif torch.is_grad_enabled():
            logits = torch.stack([checkpoint(self.model, images, use_reentrant=False) for _ in range(self.draws)])
        else:
            logits = torch.stack([self.model(images) for _ in range(self.draws)])
        self.each = logits.detach()
        return logits


class bpda(nn.Module):
    """`classifier(before(images))`, where the backward pass goes through `stand_in` in place of `before`.

    For a step that has no useful gradient (rounding, JPEG, a random purifier) and leaves the image much as it was, the
    identity stands in; it must be a function from images to images of the same shape.
    """

    def __init__(
        self,
        before: Callable[[Tensor], Tensor],
        classifier: nn.Module,
        stand_in: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.before, self.classifier, self.stand_in = before, classifier, stand_in
        self.training = classifier.training

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) to (n, k)."""
        with torch.no_grad():
            real = self.before(images)
        differentiable = images if self.stand_in is None else self.stand_in(images)
        logits: Tensor = self.classifier(differentiable + (real - differentiable).detach())
        return logits


class fixed(nn.Module):
    """A random network that draws the same numbers in each pass; the global generators are left alone."""

    def __init__(self, model: nn.Module, seed: int = 0) -> None:
        super().__init__()
        self.model, self.seed = model, seed
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) to (n, k)."""
        with reseeded(self.seed):
            logits: Tensor = self.model(images)
        return logits
