"""Common corruptions in five severities, at native resolution and on the device (Hendrycks & Dietterich 2019).

arXiv 1903.12261; the severities are those of CIFAR-10-C (make_cifar_c.py of hendrycks/robustness), all but those of
`elastic_transform`, lengths in pixels scaled by the root of the side against its 32. The kept libraries need OpenCV,
numba and at least 32x32 pixels, so that the corruptions are written here in torch. Where theirs is a loop over pixels
or an image editor's filter, ours is the nearest thing that runs on a batch, so that accuracies compare between networks
of this study, and only roughly with CIFAR-10-C. Frost, which pastes photographs, is left out.

Each of `CORRUPTIONS` is a function `corrupt(images, severity, generator)` as in shifts.py.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .shifts import Shift, compress, level
from .spatial import warp
from .threat import normal, per_example, uniform


def gaussian_noise(images: Tensor, severity: int, generator: torch.Generator | None) -> Tensor:
    """Sensor noise in low light."""
    return (images + level((0.04, 0.06, 0.08, 0.09, 0.10), severity) * normal(images, generator)).clamp(0, 1)


def shot_noise(images: Tensor, severity: int, generator: torch.Generator | None) -> Tensor:
    """Photon counting: Poisson, by its normal approximation, which at 50 and more photons is close."""
    photons = level((500, 250, 100, 75, 50), severity)
    return (images + (images / photons).sqrt() * normal(images, generator)).clamp(0, 1)


def impulse_noise(images: Tensor, severity: int, generator: torch.Generator | None) -> Tensor:
    """Dead and hot pixels: a share of all values set to 0 or 1."""
    share = level((0.01, 0.02, 0.03, 0.05, 0.07), severity)
    drawn = uniform(images, generator)
    return torch.where(drawn < share / 2, 0.0, torch.where(drawn > 1 - share / 2, 1.0, images))


def defocus_blur(images: Tensor, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """A disc-shaped blur whose edge is softened."""
    radius = level((0.3, 0.4, 0.5, 1.0, 1.5), severity) * _scale(images)
    soft = level((0.4, 0.5, 0.6, 0.2, 0.1), severity)
    reach = math.ceil(radius + 3 * soft)
    rows, columns = _offsets(reach, images)
    disc = torch.sigmoid((radius + 0.5 - (rows**2 + columns**2).sqrt()) / max(soft / 2, 0.05))
    return _convolve(images, disc.expand(len(images), -1, -1))


def glass_blur(images: Tensor, severity: int, generator: torch.Generator | None) -> Tensor:
    """Frosted glass: each pixel read from a random neighbour, between two slight blurs."""
    sigma = level((0.05, 0.25, 0.4, 0.25, 0.4), severity)
    rounds = round(level((1, 1, 1, 2, 2), severity))
    seen = _gaussian(images, sigma)
    for _ in range(rounds):
        seen = warp(seen, (2 * uniform(_field(images), generator) - 1) * 1.5 * _scale(images))
    return _gaussian(seen, sigma).clamp(0, 1)


def motion_blur(images: Tensor, severity: int, generator: torch.Generator | None) -> Tensor:
    """The camera moved in a straight line, within 45 degrees of the horizontal."""
    length = level((6, 6, 6, 8, 9), severity) * _scale(images)
    sigma = level((1, 1.5, 2, 2, 2.5), severity) * _scale(images)
    return _convolve(images, _streaks(images, length, sigma, generator))


def zoom_blur(images: Tensor, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """Moving towards the scene: the mean of ever closer views."""
    closest = level((1.06, 1.11, 1.16, 1.21, 1.26), severity)
    views = [images]
    for factor in torch.arange(1.0, closest, 0.01).tolist():
        middle = images.new_tensor([[1 / factor, 0, 0], [0, 1 / factor, 0]]).expand(len(images), 2, 3)
        grid = F.affine_grid(middle, list(images.shape), align_corners=False)
        views.append(F.grid_sample(images, grid, "bilinear", "border", align_corners=False))
    return torch.stack(views).mean(0).clamp(0, 1)


def snow(images: Tensor, severity: int, generator: torch.Generator | None) -> Tensor:
    """Bright flakes in streaks, over a paler image."""
    amount = level((0.1, 0.1, 0.15, 0.25, 0.3), severity)
    spread = level((0.2, 0.2, 0.3, 0.3, 0.3), severity)
    size = max(1.0, level((1.0, 1.0, 1.75, 2.25, 1.25), severity) * _scale(images))
    threshold = level((0.6, 0.5, 0.55, 0.6, 0.65), severity)
    radius = level((8, 10, 10, 12, 14), severity) * _scale(images)
    sigma = level((3, 4, 4, 6, 12), severity) * _scale(images)
    image_weight = level((0.95, 0.9, 0.9, 0.85, 0.8), severity)
    height, width = images.shape[-2:]
    coarse = images.new_empty(len(images), 1, math.ceil(height / size), math.ceil(width / size))
    flakes = F.interpolate(normal(coarse, generator), (height, width), mode="bilinear", align_corners=True)
    flakes = amount + spread * flakes
    flakes = torch.where(flakes < threshold, 0.0, flakes.clamp(0, 1))
    falling = _streaks(images, min(2 * radius, 3 * sigma), sigma, generator).transpose(1, 2)  # theirs reach 2 radii
    flakes = _convolve(flakes, falling)
    grey = images.mean(1, keepdim=True)
    paler = torch.maximum(images, grey * 1.5 + 0.5)
    return (image_weight * images + (1 - image_weight) * paler + flakes + flakes.rot90(2, (2, 3))).clamp(0, 1)


def fog(images: Tensor, severity: int, generator: torch.Generator | None) -> Tensor:
    """A bright cloud, rough at every scale, that takes contrast away."""
    weight = level((0.2, 0.5, 0.75, 1.0, 1.5), severity)
    decay = level((3.0, 3.0, 2.5, 2.0, 1.75), severity)
    height, width = images.shape[-2:]
    side = max(height, width)  # of a square cloud that the image is cut from: puffs are round in every shape
    cloud, strength, cells = images.new_zeros(len(images), 1, height, width), 1.0, 2
    while cells <= side:
        patch = uniform(images.new_empty(len(images), 1, cells, cells), generator)
        puffs = F.interpolate(patch, (side, side), mode="bilinear", align_corners=False)[..., :height, :width]
        cloud = cloud + strength * puffs
        strength, cells = strength / decay, cells * 2
    lowest, highest = cloud.amin((1, 2, 3)), cloud.amax((1, 2, 3))
    cloud = (cloud - per_example(lowest, cloud)) / per_example((highest - lowest).clamp_min(1e-6), cloud)
    brightest = images.amax((1, 2, 3))
    return ((images + weight * cloud) * per_example(brightest / (brightest + weight), images)).clamp(0, 1)


def brightness(images: Tensor, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """More light: the value (largest channel) raised, hue kept."""
    value = images.amax(1, keepdim=True)
    raised = (value + level((0.05, 0.1, 0.15, 0.2, 0.3), severity)).clamp_max(1)
    return torch.where(value > 0, images * raised / value.clamp_min(1e-6), raised).clamp(0, 1)


def contrast(images: Tensor, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """Flatter: every channel drawn towards its mean."""
    mean = images.mean((2, 3), keepdim=True)
    return ((images - mean) * level((0.75, 0.5, 0.4, 0.3, 0.15), severity) + mean).clamp(0, 1)


def elastic_transform(images: Tensor, severity: int, generator: torch.Generator | None) -> Tensor:
    """Stretched and squeezed in small regions, by up to 2 to 6 % of the side.

    The severities are ours. CIFAR-10-C adds a random affine map that moves pixels by up to 8 % at the first severity
    and 3 % at the last: most of its change, and one that falls with severity (mean squared change of 32x32 pieces of
    photographs: its .008 to .004, ours .0002 to .002).
    """
    side = min(images.shape[-2:])
    pixels = level((0.04, 0.06, 0.08, 0.10, 0.12), severity) * side / 2
    smooth = level((0.08, 0.08, 0.06, 0.05, 0.05), severity) * side
    flow = 2 * uniform(_field(images), generator) - 1
    flow = _gaussian(flow.permute(0, 3, 1, 2), smooth)
    flow = flow / flow.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-6) * pixels
    return warp(images, flow.permute(0, 2, 3, 1))


def pixelate(images: Tensor, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """Scaled down and, in blocks, up again."""
    share = level((0.95, 0.9, 0.85, 0.75, 0.65), severity)
    size = [max(1, int(side * share)) for side in images.shape[-2:]]
    return F.interpolate(F.interpolate(images, size, mode="area"), images.shape[-2:], mode="nearest")


def jpeg_compression(images: Tensor, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """Compressed as JPEG and unpacked."""
    return compress(images, round(level((80, 65, 58, 50, 40), severity)))


def _scale(images: Tensor) -> float:
    """Lengths in pixels against those at 32x32."""
    return float((min(images.shape[-2:]) / 32) ** 0.5)


def _field(images: Tensor) -> Tensor:
    """Room for one (x, y) a pixel: (n, h, w, 2)."""
    return images.new_empty(len(images), *images.shape[-2:], 2)


def _offsets(reach: int, images: Tensor) -> tuple[Tensor, Tensor]:
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    return steps[:, None], steps[None]


def _convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Images (n, c, h, w), each with its own kernel (n, k, k) brought to sum 1; edges repeat."""
    n, c, h, w = images.shape
    reach = kernels.shape[-1] // 2
    kernels = (kernels / kernels.sum((1, 2), keepdim=True)).repeat_interleave(c, 0)[:, None]
    padded = F.pad(images, (reach,) * 4, mode="replicate").reshape(1, n * c, h + 2 * reach, w + 2 * reach)
    return F.conv2d(padded, kernels, groups=n * c).view(n, c, h, w).clamp(0, 1)


def _gaussian(images: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur, edges repeated; values may be of any sign."""
    reach = max(1, math.ceil(3 * sigma))
    line = torch.exp(-(torch.arange(-reach, reach + 1, device=images.device) ** 2) / (2 * sigma**2))
    line = (line / line.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, line, groups=images.shape[1]), line.transpose(2, 3), groups=images.shape[1])


def _streaks(images: Tensor, length: float, sigma: float, generator: torch.Generator | None) -> Tensor:
    """Kernels (n, k, k) of a movement: fading along a line from the middle, at an angle drawn for each image."""
    rows, columns = _offsets(max(1, math.ceil(length)), images)
    angles = (uniform(images[:, 0, 0, 0], generator) * 2 - 1) * math.pi / 4
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    along, across = columns * cos + rows * sin, rows * cos - columns * sin
    fading = torch.exp(-(along**2) / (2 * max(sigma, 0.2) ** 2)) * (along >= -0.5)
    return fading * (1 - across.abs()).clamp_min(0)


CORRUPTIONS: dict[str, Shift] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
