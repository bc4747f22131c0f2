"""Residual networks in their CIFAR form: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, §4.2.

`resnet20` and `resnet56` are the paper's, with its shortcut A: where a block changes shape, the shortcut takes every
second pixel and pads the new channels with zeros, so it has no parameters. Published weights of this form fit by name
(`conv1`, `bn1`, `layer1.0.conv1`, ..., `linear`). `small_resnet` is for adversarial training on a CPU.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class _Padded(nn.Module):
    """Shortcut A: every `stride`-th pixel, and `added` channels of zeros, half of them before the others."""

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.added, self.stride = added, stride

    def forward(self, x: Tensor) -> Tensor:
        before = self.added // 2
        kept = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, before, self.added - before))


class _Block(nn.Module):
    """Two convolutions with batch norm, and a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int, projected: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = (
                nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
                if projected
                else _Padded(outputs - inputs, stride)
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(residual + self.shortcut(x))


class _Residual(nn.Module):
    """A stem, three stages of blocks, each but the first at half the resolution, the mean over pixels, a linear layer.

    Args:
        stem: stride of the first convolution. widths: channels of the stages. blocks: in each stage.
        projected: shortcuts that change shape are 1×1 convolutions (shortcut B), not shortcut A.
    """

    def __init__(
        self, channels: int, classes: int, widths: Sequence[int], blocks: int, stem: int = 1, projected: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, stem, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        stages, inputs = [], widths[0]
        for stage, width in enumerate(widths):
            first = _Block(inputs, width, 1 if stage == 0 else 2, projected)
            stages.append(nn.Sequential(first, *(_Block(width, width, 1, projected) for _ in range(blocks - 1))))
            inputs = width
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        features = functional.relu(self.bn1(self.conv1(x)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


def cifar_resnet(depth: int, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    """The paper's network of `depth` = 6 n + 2 layers, widths 16, 32, 64, shortcut A."""
    return _Residual(channels, classes, (16, 32, 64), (depth - 2) // 6)


def small_resnet(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    """A stem of stride 2, widths 32, 64, 128, one block a stage: 309k parameters, 12.3 million MACs at 3×32×32."""
    return _Residual(channels, classes, (32, 64, 128), 1, stem=2, projected=True)
