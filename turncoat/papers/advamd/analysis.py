"""What lies behind an accuracy: the analyses that the papers' figures show, made by the stage `analyse`.

AdvAmd (Yu, Chen, Gan, IJCAI 2023) explains a loss of benign accuracy by mismatched statistics and a gain by a smoother
judgement surface, and weighs images by their vulnerability; RAT (Wang et al. 2021) speaks of FGSM; reverse adversarial
examples (Ye et al. 2019) raise a classifier's confidence. Each function takes a deployed network and images; nothing is
stored, and nothing drawn from a global generator. Networks are put into eval mode.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from turncoat.attacks import Threat, fgsm
from turncoat.models.calibrator import Frozen


@torch.no_grad()
def mismatch(network: nn.Module, groups: Mapping[str, Tensor], batch_size: int = 500) -> dict[str, Any]:
    """How far each group of images lies from the first, at every batch norm and in the features before the last layer.

    Args:
        groups: name -> (n, c, h, w) images in [0, 1]; the first is the reference, the others perturb it image by image.

    Returns: `layers`, in the order of the network, each with its `channels` and, for every other group, means over
        channels of `mean_shift` |difference of means| / reference deviation, `log_variance` |log of the ratio of
        variances| and `divergence`, the KL of the group's normal distribution to the reference's; `features`, for
        every other group, means over images of `distance` |difference| / |reference| and `cosine` 1 − cosine.

    Raises:
        ValueError: fewer than two groups, groups of different sizes, or a network without BatchNorm2d or Linear.
    """
    sizes = {name: len(images) for name, images in groups.items()}
    if len(groups) < 2 or len(set(sizes.values())) != 1:
        raise ValueError(f"groups: two or more of one size are needed, got {sizes}")
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not norms or not linear:
        raise ValueError(f"{type(network).__name__} holds no BatchNorm2d or no Linear: there is nothing to compare")
    network.eval()
    measured = {name: _observe(network, images, norms, linear[-1], batch_size) for name, images in groups.items()}
    reference, *others = groups
    moments, features = measured[reference]
    layers: list[dict[str, Any]] = []
    for name in norms:
        mean, variance = moments[name]
        layer: dict[str, Any] = {"layer": name, "channels": len(mean)}
        for other in others:
            layer[other] = _gaussian_gap(*measured[other][0][name], mean, variance)
        layers.append(layer)
    gaps = {}
    for other in others:
        moved = measured[other][1]
        distance = (moved - features).norm(dim=1) / features.norm(dim=1).clamp_min(1e-12)
        cosine = 1 - functional.cosine_similarity(moved, features, dim=1)
        gaps[other] = {"distance": _round(distance.mean()), "cosine": _round(cosine.mean())}
    return {"n": sizes[reference], "reference": reference, "groups": others, "layers": layers, "features": gaps}


def _observe(
    network: nn.Module, images: Tensor, norms: Mapping[str, nn.Module], last: nn.Module, batch_size: int
) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """Mean and variance of each channel before every norm, over all images; features (n, d) before the last layer."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    features: list[Tensor] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            x = given[0].double()
            found = torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
            sums[name] = sums[name] + found if name in sums else found
            counts[name] = counts.get(name, 0) + x.numel() // x.shape[1]

        return hook

    handles = [norm.register_forward_pre_hook(watch(name)) for name, norm in norms.items()]
    handles.append(last.register_forward_pre_hook(lambda module, given: features.append(given[0].flatten(1).float())))
    try:
        for batch in images.split(batch_size):
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
    moments = {}
    for name, (first, second) in sums.items():
        mean = first / counts[name]
        moments[name] = mean, (second / counts[name] - mean.square()).clamp_min(1e-12)
    return moments, torch.cat(features)


def _gaussian_gap(mean: Tensor, variance: Tensor, reference: Tensor, spread: Tensor) -> dict[str, float]:
    shift, ratio = (mean - reference).square() / spread, variance / spread
    return {
        "mean_shift": _round(shift.sqrt().mean()),
        "log_variance": _round(ratio.log().abs().mean()),
        "divergence": _round((ratio + shift - 1 - ratio.log()).mean() / 2),
    }


@torch.no_grad()
def judgement_surface(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    adversarial: Tensor,
    generator: torch.Generator,
    *,
    size: int = 21,
    low: float = -0.5,
    high: float = 1.5,
    shown: int = 4,
    batch_size: int = 2000,
) -> dict[str, Any]:
    """Loss and decision on the plane of the adversarial direction and a random one across it, of the same length.

    Args:
        images, labels, adversarial: (n, c, h, w) in [0, 1], (n,), (n, c, h, w).
        size: points on each axis from `low` to `high`, in units of the perturbation: (0, 0) is the image, (1, 0) its
            adversarial one. Points outside the box are clipped to it.
        shown: so many first images have their own decisions returned.

    Returns: `at` (size,), `loss` and `accuracy` (size, size) averaged over images, the first index along the
        adversarial direction; `roughness`, the mean |second difference| of each image's loss in the adversarial
        direction / step²; `decisions`, for each shown image its label and the predicted classes (size, size).
    """
    network.eval()
    along = adversarial - images
    across = torch.randn(images.shape, generator=generator, device=generator.device).to(images.device)
    flat, direction = across.flatten(1), along.flatten(1)
    length = direction.norm(dim=1, keepdim=True)
    flat = flat - (flat * direction).sum(1, keepdim=True) / length.square().clamp_min(1e-12) * direction
    across = (flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-12) * length).view_as(images)
    at = torch.linspace(low, high, size)
    losses, predicted = images.new_empty(size, size, len(images)), labels.new_empty(size, size, len(images))
    for row, a in enumerate(at.tolist()):
        for column, b in enumerate(at.tolist()):
            points = (images + a * along + b * across).clamp(0, 1)
            logits = torch.cat([network(part).float() for part in points.split(batch_size)])
            losses[row, column] = functional.cross_entropy(logits, labels, reduction="none")
            predicted[row, column] = logits.argmax(1)
    bends = losses.diff(n=2, dim=0).abs().mean() / ((high - low) / (size - 1)) ** 2
    return {
        "n": len(images),
        "at": _round(at),
        "loss": _round(losses.mean(2)),
        "accuracy": _round((predicted == labels).float().mean(2)),
        "roughness": _round(bends),
        "decisions": [
            {"label": int(labels[place]), "predicted": predicted[:, :, place].tolist()}
            for place in range(min(shown, len(images)))
        ],
    }


@torch.no_grad()
def vulnerability(
    network: nn.Module, images: Tensor, labels: Tensor, adversarial: Tensor, batch_size: int = 500
) -> NDArray[np.float32]:
    """What an attack takes from the probability of the right class, clipped to [0, 1]: (n,)."""
    before, after = (_confidence(network, given, labels, batch_size) for given in (images, adversarial))
    taken: NDArray[np.float32] = (before - after).clamp(0, 1).cpu().numpy()
    return taken


def fgsm_curves(
    network: nn.Module, source: nn.Module, images: Tensor, labels: Tensor, threat: Threat, radii: Sequence[float]
) -> dict[str, list[int]]:
    """Right answers under FGSM at each of `radii`, in units of epsilon; 0 is the image itself.

    Returns: `white-box`, against the network itself, and `transferred`, images made against `source`.
    """
    curves: dict[str, list[int]] = {"white-box": [], "transferred": []}
    for counts, attacked in zip(curves.values(), (network, source), strict=True):
        for radius in radii:
            seen = images
            if radius:
                seen = fgsm(attacked, images, labels, replace(threat, epsilon=radius * threat.epsilon))
            with torch.no_grad():
                counts.append(int((network(seen).argmax(1) == labels).sum()))
    return curves


@torch.no_grad()
def before_and_after(
    pipeline: Frozen, images: Tensor, labels: Tensor, *, bins: int = 10, batch_size: int = 500
) -> tuple[dict[str, float], NDArray[np.int64]]:
    """What a calibrator does to the probability of the right class, image by image.

    Returns: the shares of images that are right `before` and `after` it, and whose confidence `rose` and `fell` by
        more than 0.01; and how many images lie in which bin before (rows) and after (columns), (bins, bins).
    """
    logits = [torch.cat([net(part) for part in images.split(batch_size)]) for net in (pipeline.classifier, pipeline)]
    right = [float((each.argmax(1) == labels).float().mean()) for each in logits]
    before, after = (each.float().softmax(1).gather(1, labels[:, None])[:, 0] for each in logits)
    place, moved = ((each * bins).long().clamp_max(bins - 1) for each in (before, after))
    counts = (place * bins + moved).bincount(minlength=bins * bins).view(bins, bins)
    shares = {
        "before": right[0],
        "after": right[1],
        "rose": float((after > before + 0.01).float().mean()),
        "fell": float((after < before - 0.01).float().mean()),
    }
    return {name: round(share, 6) for name, share in shares.items()}, counts.cpu().numpy()


def _confidence(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Probability of the right class, (n,)."""
    network.eval()
    logits = torch.cat([network(batch).float() for batch in images.split(batch_size)])
    return logits.softmax(1).gather(1, labels[:, None])[:, 0]


def _round(values: Tensor) -> Any:
    """A number or nested lists of numbers, to six decimals."""

    def each(value: float | Sequence[Any]) -> Any:
        return round(value, 6) if isinstance(value, int | float) else [each(part) for part in value]

    return each(values.tolist())
