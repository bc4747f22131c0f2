"""Purifiers, the discriminator that trains them, and the defended network f(g(t(x))) of AToP (arXiv 2401.16352).

A purifier sees the visible part of a transformed image and the mask, and returns the whole image: in [-1, 1] inside,
tanh at the end, images in [0, 1] outside. Four networks, all of them for any size from 8×8:

    inpainter    the authors' own: the coarse and the refining network of Yu et al., "Free-Form Image Inpainting with
                 Gated Convolution", ICCV 2019 (arXiv 1806.03589), layer by layer, but for its contextual attention
    gated        the same idea for small images: gated convolutions, two stages, skips
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

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1, size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 2 * outputs, size, stride, dilation * (size // 2), dilation)

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


class Inpainter(nn.Module):
    """One stage of arXiv 1806.03589: 5×5 stem, two halvings, dilated bottleneck, two doublings, no skips.

    The refining stage sees the drafted image alone, and has a second branch beside the dilated one: there the authors'
    contextual attention copies features from visible places. At 32×32 pixels its map has 4×4 places, and with a quarter
    of 8×8 patches hidden some three of them, at the border for the most part, have wholly visible 3×3 surroundings: too
    few to copy from. The second branch stays, without the attention.

    Args:
        inputs: leading channels that it sees. width: that of the authors' code is 48; at full resolution it is halved.
    """

    def __init__(self, inputs: int, outputs: int, width: int, refining: bool) -> None:
        super().__init__()
        self.inputs = inputs
        dilated = [GatedConv(2 * width, 2 * width, dilation=reach) for reach in (1, 2, 4, 8, 16)]
        plain = [GatedConv(2 * width, 2 * width) for _ in range(3)]
        self.branches = nn.ModuleList([nn.Sequential(*self._down(inputs, width), *dilated)])
        if refining:
            self.branches.append(nn.Sequential(*self._down(inputs, width), *plain))
        self.joined = nn.Sequential(
            GatedConv(2 * width * (1 + refining), 2 * width), GatedConv(2 * width, 2 * width),
            nn.Upsample(scale_factor=2), GatedConv(2 * width, width), GatedConv(width, width),
            nn.Upsample(scale_factor=2), GatedConv(width, width // 2), GatedConv(width // 2, width // 4),
        )  # fmt: skip
        self.head = nn.Conv2d(width // 4, outputs, 3, 1, 1)
        for module in self.modules():
            if isinstance(module, GatedConv):  # an open gate lets half through: over 18 layers nothing would be left
                features = module.conv.weight[: module.conv.out_channels // 2]
                nn.init.normal_(features, std=2 / features[0].numel() ** 0.5)
                nn.init.zeros_(module.conv.bias)  # type: ignore[arg-type]

    @staticmethod
    def _down(inputs: int, width: int) -> list[nn.Module]:
        return [
            GatedConv(inputs, width // 2, size=5),
            GatedConv(width // 2, width, 2), GatedConv(width, width),
            GatedConv(width, 2 * width, 2), GatedConv(2 * width, 2 * width),
        ]  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w), the image first, to (n, outputs, h, w) in [-1, 1]; h and w are multiples of 4."""
        x = x[:, : self.inputs]
        made: Tensor = self.head(self.joined(torch.cat([branch(x) for branch in self.branches], 1))).tanh()
        return made


class Purifier(nn.Module):
    """An inpainter of a named architecture.

    Args:
        network: a name in `PURIFIERS`.
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
        # image, ones, mask: the ones tell a convolution where the image ends
        inputs = channels + 2
        if network == "inpainter":
            if height % 4 or width_ % 4 or width % 4:
                raise TurncoatError(
                    f"purifier inpainter: sides and width must be multiples of 4, got {height}×{width_} and {width}"
                )
            coarse, fine = Inpainter(inputs, channels, width, False), Inpainter(channels, channels, width, True)
            self.stages = nn.ModuleList([coarse, fine])
        else:
            stages, conv, skips = HOURGLASSES[network]
            size = min(height, width_)
            self.stages = nn.ModuleList(Hourglass(inputs, channels, width, size, conv, skips) for _ in range(stages))

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


HOURGLASSES: dict[str, tuple[int, type[nn.Module], bool]] = {  # stages, convolution, skips
    "gated": (2, GatedConv, True),
    "unet": (1, PlainConv, True),
    "autoencoder": (1, PlainConv, False),
}
PURIFIERS = (*HOURGLASSES, "inpainter")


def _depth(size: int) -> int:
    """Halvings of a side of `size` pixels: down to 2 or 3, at most four."""
    return max(1, min(4, (size // 4).bit_length()))


class Discriminator(nn.Module):
    """Real or made, place by place: spectral-norm convolutions, after the one of arXiv 1806.03589.

    Args:
        masked: it is shown what was hidden too, as there.
    """

    def __init__(self, shape: Sequence[int], width: int = 16, masked: bool = False) -> None:
        super().__init__()
        self.masked = masked
        layers: list[nn.Module] = []
        inputs = shape[0] + masked
        for level in range(_depth(min(shape[1:]))):
            outputs = width * 2 ** min(level, 2)
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4, 2, 1)), nn.LeakyReLU(0.2)]
            inputs = outputs
        self.network = nn.Sequential(*layers, spectral_norm(nn.Conv2d(inputs, 1, 3, 1, 1)))

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """(n, c, h, w) in [0, 1], and masks (n, 1, h, w) if `masked`, to scores (n, 1, h', w'), high where real."""
        shown = 2 * images - 1
        if self.masked:
            assert masks is not None
            shown = torch.cat([shown, masks], 1)
        scores: Tensor = self.network(shown)
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
        return self.stages(images, generator)[0][:, -1]

    def stages(self, images: Tensor, generator: Source = None) -> tuple[Tensor, Tensor]:
        """What each stage of the purifier makes of t(x), the final image last, and what was hidden from it.

        Returns: (n, stages, c, h, w) in [0, 1]; (n, 1, h, w), 1 where hidden: with several masks an image, everywhere.
        """
        noisy, masks = self.transform(images, generator)
        parts = masks.shape[1]
        if parts == 1:
            return self.purifier.outputs(noisy, masks[:, 0]), masks[:, 0]
        filled = self.purifier.outputs(noisy.repeat_interleave(parts, 0), masks.flatten(0, 1))
        assembled = (filled.unflatten(0, (len(images), parts)) * masks[:, :, None]).sum(1)
        return assembled, masks.sum(1)

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
