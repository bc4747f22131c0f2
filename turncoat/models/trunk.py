"""What the networks of segmentation and detection have in common: their input, and a small trunk for a CPU."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from turncoat.errors import TurncoatError

WIDTHS = (16, 32, 64)
SMALL = 64  # pixels; below, the first convolution keeps the resolution, as in the classifiers


class Trunk(nn.Module):
    """Four 3×3 convolutions with batch norm, 16 to 64 channels.

    From (n, c, h, w) to {"low": 32 channels, "high": 64 channels}, at strides 4 and 8; of images below 64 pixels at
    strides 2 and 4.
    """

    def __init__(self, channels: int, size: Sequence[int]) -> None:
        super().__init__()
        first = 1 if min(size) < SMALL else 2
        self.stride = 4 * first
        narrow, middle, wide = WIDTHS
        self.low = nn.Sequential(
            Conv2dNormActivation(channels, narrow, 3, first), Conv2dNormActivation(narrow, middle, 3, 2)
        )
        self.high = nn.Sequential(Conv2dNormActivation(middle, wide, 3, 2), Conv2dNormActivation(wide, wide, 3, 1))

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        low = self.low(images)
        return OrderedDict(low=low, high=self.high(low))


def coloured(images: Tensor) -> Tensor:
    """(n, 3, h, w): grey images with their channel three times, for networks that take colour."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def library_keywords(args: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords for a torchvision builder: nothing is downloaded unless `weights_backbone` asks for it.

    Raises:
        TurncoatError: `weights`, whose heads are of other classes.
    """
    if "weights" in args:
        raise TurncoatError("model_args.weights: these have heads of other classes; give weights_backbone, or none")
    return {"weights": None, "weights_backbone": None, **args}


def built(model: str, make: Any, keywords: Mapping[str, Any]) -> nn.Module:
    """What a torchvision builder makes.

    Raises:
        TurncoatError: a keyword it does not take, or pretrained weights that are neither in the cache nor to be had.
    """
    try:
        network: nn.Module = make(**keywords)
    except OSError as error:  # no connection, or a full disk
        raise TurncoatError(
            f"model_args.weights_backbone: {keywords.get('weights_backbone')} of {model} is not in torch's cache and "
            f"could not be fetched ({error}); remove it, or put the file there"
        ) from error
    except (TypeError, ValueError, KeyError) as error:
        raise TurncoatError(f"model_args: not settings of {model}: {error}") from error
    return network


__all__ = ["SMALL", "WIDTHS", "Trunk", "built", "coloured", "library_keywords"]
