"""Purifiers, the discriminator that trains them, and the defended network f(g(t(x))) of AToP (arXiv 2401.16352).

A purifier sees the visible part of a transformed image and the mask, and returns the whole image: in [-1, 1] inside,
tanh at the end, images in [0, 1] outside. Three networks, all of them for any size from 8×8:

    gated        gated convolutions, a coarse and a refining stage: Yu et al., "Free-Form Image Inpainting with Gated
                 Convolution", ICCV 2019 (arXiv 1806.03589), without its contextual attention
    unet         a light U-Net
    autoencoder  the same without skips: everything has to pass the bottleneck
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import log
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from turncoat.errors import TurncoatError
from turncoat.models.transforms import Source, Transform
from turncoat.randomness import generator as counted


class GatedConv(nn.Module):
    """A convolution whose output is weighed, pixel by pixel, by a gate that it learns: holes need not count."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 2 * outputs, 3, stride, dilation, dilation)

    def forward(self, x: Tensor) -> Tensor:
        features, gate = self.conv(x).chunk(2, 1)
        gated: Tensor = functional.elu(features) * gate.sigmoid()
        return gated


class PlainConv(nn.Module):
    """A convolution and its activation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.conv(x))


class Hourglass(nn.Module):
    """Down by strides of 2, up by repeated pixels; `skips` hand each resolution over to its way up."""

    def __init__(self, inputs: int, outputs: int, width: int, size: int, conv: type[nn.Module], skips: bool) -> None:
        super().__init__()
        depth = _depth(size)
        widths = [width * 2 ** min(level, 2) for level in range(depth + 1)]
        self.skips = skips
        self.stem = conv(inputs, width)
        self.down = nn.ModuleList(conv(a, b, 2) for a, b in pairwise(widths))
        self.inner = self._inner(widths[-1], size >> depth, conv)
        self.up = nn.ModuleList(conv(b + a * skips, a) for b, a in pairwise(reversed(widths)))
        self.head = nn.Conv2d(width, outputs, 3, 1, 1)
        if skips:  # begins as nearly the identity: from a random start tanh saturates on dark images, and no way back
            nn.init.zeros_(self.head.weight)

    @staticmethod
    def _inner(width: int, side: int, conv: type[nn.Module]) -> nn.Module:
        if conv is GatedConv:  # dilation instead of depth: the surroundings of a large hole come into view
            return nn.Sequential(*(GatedConv(width, width, dilation=reach) for reach in (1, 2, 4, 8) if reach < side))
        return conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w), the image first, to (n, outputs, h, w) in [-1, 1]."""
        image = x[:, : self.head.out_channels]
        x = self.stem(x)
        kept = []
        for layer in self.down:
            kept.append(x)
            x = layer(x)
        x = self.inner(x)
        for layer in self.up:
            skipped = kept.pop()
            x = functional.interpolate(x, size=skipped.shape[-2:])
            x = layer(torch.cat([x, skipped], 1) if self.skips else x)
        made: Tensor = (self.head(x) + 2 * image * self.skips).tanh()
        return made


class Purifier(nn.Module):
    """An inpainter of a named architecture.

    Args:
        network: "gated", "unet" or "autoencoder".
        shape: (channels, height, width) of an image.
        width: channels at full resolution; the deepest level has four times as many.
    """

    def __init__(self, network: str, shape: Sequence[int], width: int = 32) -> None:
        super().__init__()
        if network not in PURIFIERS:
            raise TurncoatError(f"purifier {network!r} is not defined; there are {', '.join(PURIFIERS)}")
        channels, height, width_ = (int(size) for size in shape)
        self.spec: Final[dict[str, Any]] = {
            "kind": "purifier", "network": network, "shape": [channels, height, width_], "width": width,
        }  # fmt: skip
        stages, conv, skips = PURIFIERS[network]
        # image, ones, mask: the ones tell a convolution where the image ends
        self.stages = nn.ModuleList(
            Hourglass(channels + 2, channels, width, min(height, width_), conv, skips) for _ in range(stages)
        )

    def outputs(self, images: Tensor, masks: Tensor) -> Tensor:
        """What each stage makes, the final image last: (n, stages, c, h, w) in [0, 1].

        Args:
            images: (n, c, h, w) in [0, 1]; what lies under the mask is not looked at.
            masks: (n, 1, h, w), 1 where hidden.
        """
        visible = (2 * images - 1) * (1 - masks)
        made: list[Tensor] = []
        for stage in self.stages:
            drafted = visible + made[-1] * masks if made else visible
            made.append(stage(torch.cat([drafted, torch.ones_like(masks), masks], 1)))
        return (torch.stack(made, 1) + 1) / 2

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """The whole image, (n, c, h, w) in [0, 1]: what was visible is made anew too, for it may be attacked."""
        return self.outputs(images, masks)[:, -1]


PURIFIERS: dict[str, tuple[int, type[nn.Module], bool]] = {  # stages, convolution, skips
    "gated": (2, GatedConv, True),
    "unet": (1, PlainConv, True),
    "autoencoder": (1, PlainConv, False),
}


def _depth(size: int) -> int:
    """Halvings of a side of `size` pixels: down to 2 or 3, at most four."""
    return max(1, min(4, (size // 4).bit_length()))


class Discriminator(nn.Module):
    """Real or made, place by place: spectral-norm convolutions, after the one of arXiv 1806.03589."""

    def __init__(self, shape: Sequence[int], width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = shape[0]
        for level in range(_depth(min(shape[1:]))):
            outputs = width * 2 ** min(level, 2)
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4, 2, 1)), nn.LeakyReLU(0.2)]
            inputs = outputs
        self.network = nn.Sequential(*layers, spectral_norm(nn.Conv2d(inputs, 1, 3, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) in [0, 1] to scores (n, 1, h', w'), high where real."""
        scores: Tensor = self.network(2 * images - 1)
        return scores


class Pipeline(nn.Module):
    """f(g(t(x))): a frozen classifier behind a purifier behind a random transform.

    The classifier stays in eval mode and asks for no gradients, whatever mode the pipeline is in.

    Args:
        votes: draws of the transform whose class probabilities are averaged.
    """

    def __init__(self, transform: Transform, purifier: Purifier, classifier: nn.Module, votes: int = 1) -> None:
        super().__init__()
        if votes < 1:
            raise TurncoatError(f"votes: {votes} is not allowed; give at least 1")
        self.transform, self.purifier, self.votes = transform, purifier, votes
        self.classifier = classifier.eval().requires_grad_(False)

    @property
    def spec(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).spec for name in ("transform", "purifier", "classifier")}
        return {"kind": "pipeline", **parts, "votes": self.votes}

    def train(self, mode: bool = True) -> "Pipeline":
        super().train(mode)
        self.classifier.eval()
        return self

    def purify(self, images: Tensor, generator: Source = None) -> Tensor:
        """g(t(x)), (n, c, h, w) in [0, 1]; with several masks an image, each hidden part as its own pass filled it."""
        noisy, masks = self.transform(images, generator)
        parts = masks.shape[1]
        if parts == 1:
            purified: Tensor = self.purifier(noisy, masks[:, 0])
            return purified
        filled = self.purifier(noisy.repeat_interleave(parts, 0), masks.flatten(0, 1))
        assembled: Tensor = (filled.view(len(images), parts, *images.shape[1:]) * masks).sum(1)
        return assembled

    def forward(self, images: Tensor, *, purified: bool = False, seeds: Sequence[int] | None = None) -> Tensor:
        """Logits (n, classes), or with several votes the logarithm of the mean probabilities.

        Args:
            purified: `images` are what `purify` made already, and only the classifier is left to run.
            seeds: one an image: its draws then hang on its seed alone, whatever stands beside it in the batch.
        """
        if purified or self.votes == 1:
            logits: Tensor = self.classifier(images if purified else self.purify(images, _sources(seeds, 0)))
            return logits
        # In a backward pass each draw is made again from the same stream: the memory of one, however many vote.
        run = partial(checkpoint, self._vote, use_reentrant=False) if torch.is_grad_enabled() else self._vote
        return torch.stack([run(images, seeds, vote) for vote in range(self.votes)]).logsumexp(0) - log(self.votes)

    def _vote(self, images: Tensor, seeds: Sequence[int] | None, vote: int) -> Tensor:
        drawn: Tensor = self.classifier(self.purify(images, _sources(seeds, vote))).log_softmax(1)
        return drawn


def _sources(seeds: Sequence[int] | None, vote: int) -> list[torch.Generator] | None:
    """A counted generator an image."""
    return None if seeds is None else [counted(seed, vote) for seed in seeds]
