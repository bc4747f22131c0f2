"""Changes of the scene: light, camera and pose, in five severities, that no attacker chose.

Each of `SHIFTS` is a function `shift(images, severity, generator)`: (n, c, h, w) float32 in [0, 1] with 1 or 3 channels
and any size from 8x8, severity 1 to 5, to images of the same shape, dtype and device. The generator decides what is
random, image by image. The severities are this study's own; lengths in pixels grow with the root of the image's side.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .spatial import rigid
from .threat import normal, per_example, uniform

Shift = Callable[[Tensor, int, torch.Generator | None], Tensor]
SEVERITIES = (1, 2, 3, 4, 5)


def level(values: tuple[float, ...], severity: int) -> float:
    """The setting of this severity."""
    if isinstance(severity, bool) or severity not in SEVERITIES:
        raise ValueError(f"severity: {severity!r} is not allowed; give a whole number from 1 to 5")
    return values[severity - 1]


def brightness(images: Tensor, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """Less light: pixels times a factor."""
    from torchvision.transforms.v2 import functional

    darker: Tensor = functional.adjust_brightness(images, level((0.8, 0.65, 0.5, 0.35, 0.2), severity))
    return darker


def contrast(images: Tensor, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """Flatter: pixels drawn towards the image's mean grey."""
    from torchvision.transforms.v2 import functional

    flatter: Tensor = functional.adjust_contrast(images, level((0.8, 0.6, 0.45, 0.3, 0.2), severity))
    return flatter


def rotation(images: Tensor, severity: int, generator: torch.Generator | None) -> Tensor:
    """Turned about the middle, to either side at random; outside is black."""
    degrees = level((5, 10, 15, 22, 30), severity)
    left = uniform(images[:, 0, 0, 0], generator) < 0.5
    return torch.where(per_example(left, images), rigid(images, degrees, 0, 0), rigid(images, -degrees, 0, 0))


def blur(images: Tensor, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """Out of focus: a Gaussian of 0.4 to 1.5 pixels at 32x32."""
    from torchvision.transforms.v2 import functional

    sigma = level((0.4, 0.6, 0.8, 1.1, 1.5), severity) * (min(images.shape[-2:]) / 32) ** 0.5
    radius = min(max(1, round(3 * sigma)), min(images.shape[-2:]) - 1)
    blurred: Tensor = functional.gaussian_blur(images, [2 * radius + 1] * 2, [sigma] * 2)
    return blurred.clamp(0, 1)


def noise(images: Tensor, severity: int, generator: torch.Generator | None) -> Tensor:
    """A sensor's Gaussian noise."""
    return (images + level((0.04, 0.08, 0.12, 0.18, 0.25), severity) * normal(images, generator)).clamp(0, 1)


def jpeg(images: Tensor, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """Compressed as JPEG and unpacked, on the CPU."""
    return compress(images, round(level((80, 60, 40, 25, 10), severity)))


def compress(images: Tensor, quality: int) -> Tensor:
    """Images (n, c, h, w) through a JPEG file of this quality, 1 to 100."""
    from torchvision.transforms.v2 import functional

    coarse = (images * 255).round().to(torch.uint8).cpu()
    unpacked: Tensor = functional.jpeg(coarse, quality)
    return unpacked.to(images.device).float() / 255


def camera(images: Tensor, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """Another camera: a darker tone curve and, with three channels, a warmer white balance."""
    curved = images ** level((1.1, 1.25, 1.4, 1.6, 1.8), severity)
    warmth = level((0.04, 0.08, 0.12, 0.18, 0.25), severity)
    gains = [1 + warmth, 1.0, 1 - warmth] if images.shape[1] == 3 else [1 - warmth] * images.shape[1]
    return torch.stack([channel * gain for channel, gain in zip(curved.unbind(1), gains, strict=True)], 1).clamp(0, 1)


SHIFTS: dict[str, Shift] = {
    "brightness": brightness,
    "contrast": contrast,
    "rotation": rotation,
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "camera": camera,
}
