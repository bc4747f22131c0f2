"""Image classifiers: logits out of images in [0, 1]; normalisation is the first layer, so epsilon means one thing.

torchvision's definitions where they fit, with the stems and strides that 32×32 images need; torchvision is imported
only by the networks that come from it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from turncoat.errors import TurncoatError
from turncoat.models.foreign import check_logits, foreign
from turncoat.models.residual import cifar_resnet, small_resnet
from turncoat.settings import FOREIGN

Size = tuple[int, int]  # height and width in pixels


class Normalize(nn.Module):
    """Subtract the training set's channel means, divide by its standard deviations."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)  # the spec carries them
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Classifier(nn.Module):
    """A named network behind its normalisation.

    Args:
        model: a key of `NETWORKS`, `timm/<name>`, `torchvision/<name>`, or a factory, `package.module:name`, which is
            code and is run.
        classes: number of logits.
        shape: (channels, height, width) of an image.
        mean, std: per channel, of the training images in [0, 1].
        args: keywords for a network that is not of `NETWORKS`.

    Raises:
        TurncoatError: there is no such network, or it cannot be had for such images.
    """

    def __init__(
        self,
        model: str,
        classes: int,
        shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if model not in NETWORKS and not FOREIGN.fullmatch(model):
            raise TurncoatError(f"model {model} is not defined; there are {', '.join(NETWORKS)}")
        channels, height, width = shape
        if min(height, width) < SMALLEST:
            raise TurncoatError(f"images of {height}×{width} pixels: at least {SMALLEST}×{SMALLEST} are needed")
        self.spec: Final[dict[str, Any]] = {
            "kind": "classifier",
            "model": model,
            "classes": int(classes),
            "shape": [int(size) for size in shape],
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
            **({"args": dict(args)} if args else {}),
        }
        if not len(mean) == len(std) == channels:
            raise TurncoatError(f"normalisation of {len(mean)} channels for images of {channels}")
        self.normalize = Normalize(mean, std)
        if model in NETWORKS:
            self.network = NETWORKS[model](channels, (height, width), classes)
        else:
            self.network = foreign(model, classes, shape, args or {})

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes), float32 also under autocast: losses and attacks need their precision."""
        logits: Any = self.network(self.normalize(images))
        if isinstance(logits, tuple | list | dict):  # in training mode some foreign networks return more
            check_logits(logits)
        wide: Tensor = logits.float()
        return wide


def _conv_bn(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def small_cnn(channels: int, size: Size, classes: int) -> nn.Module:
    """Three convolutions and a linear layer: 8×8 digits and 28×28 images on a CPU."""
    last = [-(-side // 4) for side in size]  # two strides of 2, rounded up
    # Average pooling to 2×2 by a fixed window: the adaptive layer has no deterministic backward pass on CUDA.
    window = (last[0] // 2, last[1] // 2)
    pooled = (last[0] // window[0]) * (last[1] // window[1])
    return nn.Sequential(
        *_conv_bn(channels, 16),
        *_conv_bn(16, 32, stride=2),
        *_conv_bn(32, 64, stride=2),
        nn.AvgPool2d(window),
        nn.Flatten(),
        nn.Linear(64 * pooled, classes),
    )


def resnet18(channels: int, size: Size, classes: int) -> nn.Module:
    """torchvision's ResNet-18; below 64 pixels with the CIFAR stem (3×3, stride 1, no pooling)."""
    from torchvision.models import resnet

    network = resnet.resnet18(weights=None, num_classes=classes)
    if min(size) < 64:
        network.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    return _mean_pooled(network)


def _mean_pooled(network: nn.Module) -> nn.Module:
    """Global average pooling as a mean: the adaptive layer's CUDA backward pass is not deterministic."""
    network.avgpool = _GlobalMean()
    return network


class _GlobalMean(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3), keepdim=True)


def mobilenet_v2(channels: int, size: Size, classes: int) -> nn.Module:
    """torchvision's MobileNetV2; below 64 pixels the first three stages keep the resolution."""
    from torchvision.models import MobileNetV2

    early = 1 if min(size) < 64 else 2
    setting = [  # expansion, channels, blocks, stride
        [1, 16, 1, 1],
        [6, 24, 2, early],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    network: nn.Module = MobileNetV2(num_classes=classes, inverted_residual_setting=setting, dropout=0.0)
    network.get_submodule("features.0")[0] = nn.Conv2d(channels, 32, 3, early, 1, bias=False)  # type: ignore[operator]
    return network


def vgg16(channels: int, size: Size, classes: int) -> nn.Module:
    """torchvision's VGG-16 with batch norm and the one linear layer that CIFAR needs; small images are pooled less."""
    from torchvision.models import vgg16_bn

    network, side = vgg16_bn(weights=None), min(size)
    network.features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    for place, layer in enumerate(network.features):
        if isinstance(layer, nn.MaxPool2d):
            if side < 2:
                network.features[place] = nn.Identity()
            side //= 2
    network.classifier = nn.Linear(512, classes)
    return _mean_pooled(network)


class _WideBlock(nn.Module):
    """A pre-activation block of Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        changes = inputs != outputs or stride != 1
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.norm1(x))
        residual = self.conv2(functional.relu(self.norm2(self.conv1(active))))
        # A block that changes shape projects the activated input; an identity block adds the raw one.
        skipped: Tensor = residual + (x if self.shortcut is None else self.shortcut(active))
        return skipped


def wide_resnet(depth: int, factor: int, channels: int, size: Size, classes: int) -> nn.Module:
    """WRN-depth-factor in its CIFAR form; depth = 6 n + 4."""
    widths = [16, 16 * factor, 32 * factor, 64 * factor]
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)]
    for stage, stride in enumerate((1, 2, 2)):
        for block in range((depth - 4) // 6):
            inputs = widths[stage] if block == 0 else widths[stage + 1]
            layers.append(_WideBlock(inputs, widths[stage + 1], stride if block == 0 else 1))
    network = nn.Sequential(
        *layers,
        nn.BatchNorm2d(widths[3]),
        nn.ReLU(inplace=True),
        _GlobalMean(),
        nn.Flatten(),
        nn.Linear(widths[3], classes),
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


NETWORKS: dict[str, Callable[[int, Size, int], nn.Module]] = {
    "small_cnn": small_cnn,
    "small_resnet": small_resnet,
    "resnet20": partial(cifar_resnet, 20),
    "resnet56": partial(cifar_resnet, 56),
    "resnet18": resnet18,
    "wide_resnet28_10": partial(wide_resnet, 28, 10),
    "wide_resnet34_10": partial(wide_resnet, 34, 10),
    "mobilenet_v2": mobilenet_v2,
    "vgg16": vgg16,
}
SMALLEST = 8  # pixels
