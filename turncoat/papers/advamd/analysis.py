"""What AdvAmd explains an accuracy by: mismatched statistics, a smooth judgement surface, vulnerable images.

Yu, Chen, Gan, IJCAI 2023: a loss of benign accuracy comes from mismatched statistics and a gain from a smoother
judgement surface, and images are weighed by their vulnerability. Nothing is drawn from a global generator; networks are
put into eval mode.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from turncoat.attacks import pgd
from turncoat.papers.material import BESIDE, Findings, Material

ON_SURFACE = 32  # images whose judgement surface is averaged


def analyse(material: Material) -> Findings:
    """Who is vulnerable, how far mediate and adversarial images lie from benign ones, how the loss is shaped.

    Vulnerability is the baseline's under the stored attack, (n,). Mismatch and surface are each network's own, under
    PGD-20, of standard and PGD training and of all AdvAmd arms.
    """
    whole, images, labels = material.test, material.few.floats(), material.few.labels
    taken = vulnerability(material.baseline, whole.floats(), whole.labels, material.attacked)
    arrays: dict[str, NDArray[Any]] = {"vulnerability": taken}
    gaps, surfaces = {}, {}
    for name, arm in material.of(*BESIDE, "advamd").items():
        network, source = arm.load(), material.source()
        adversarial = pgd(network, images, labels, material.threat, steps=20, generator=source)
        middle = (images + adversarial) / 2
        gaps[name] = mismatch(network, {"benign": images, "mediate": middle, "adversarial": adversarial})
        here = slice(0, ON_SURFACE)
        surface = judgement_surface(network, images[here], labels[here], adversarial[here], source)
        for key in ("loss", "accuracy"):
            arrays[f"{key}-{name}"] = np.array(surface.pop(key), np.float32)
        decisions = surface.pop("decisions")
        arrays[f"decisions-{name}"] = np.array([shown["predicted"] for shown in decisions], np.int16)
        surfaces[name] = surface | {"labels": [shown["label"] for shown in decisions]}
    return {"mismatch": gaps, "surface": surfaces}, arrays


@torch.no_grad()
def mismatch(network: nn.Module, groups: Mapping[str, Tensor], batch_size: int = 500) -> dict[str, Any]:
    """How far each group of images lies from the first, at every batch norm and in the features before the last layer.

    The last linear layer, or of a network without one, the last batch norm.

    Args:
        groups: name -> (n, c, h, w) images in [0, 1]; the first is the reference, the others perturb it image by image.

    Returns: `layers`, in the order of the network, each with its `channels` and, for every other group, means over
        channels of `mean_shift` |difference of means| / reference deviation, `log_variance` |log of the ratio of
        variances| and `divergence`, the KL of the group's normal distribution to the reference's; `features`, for
        every other group, means over images of `distance` |difference| / |reference| and `cosine` 1 − cosine.

    Raises:
        ValueError: fewer than two groups, groups of different sizes, or a network without BatchNorm2d.
    """
    sizes = {name: len(images) for name, images in groups.items()}
    if len(groups) < 2 or len(set(sizes.values())) != 1:
        raise ValueError(f"groups: two or more of one size are needed, got {sizes}")
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    if not norms:
        raise ValueError(f"{type(network).__name__} holds no BatchNorm2d: there is nothing to compare")
    last = [*norms.values(), *(module for module in network.modules() if isinstance(module, nn.Linear))][-1]
    network.eval()
    measured = {name: _observe(network, images, norms, last, batch_size) for name, images in groups.items()}
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


@torch.no_grad()
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
    along, across = plane(images, adversarial, generator)
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


def plane(images: Tensor, adversarial: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The adversarial direction of each image, and a random one across it of the same length: (n, c, h, w) each."""
    along = adversarial - images
    across = torch.randn(images.shape, generator=generator, device=generator.device).to(images.device)
    flat, direction = across.flatten(1), along.flatten(1)
    length = direction.norm(dim=1, keepdim=True)
    flat = flat - (flat * direction).sum(1, keepdim=True) / length.square().clamp_min(1e-12) * direction
    return along, (flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-12) * length).view_as(images)


@torch.no_grad()
def vulnerability(
    network: nn.Module, images: Tensor, labels: Tensor, adversarial: Tensor, batch_size: int = 500
) -> NDArray[np.float32]:
    """What an attack takes from the probability of the right class, clipped to [0, 1]: (n,)."""
    before, after = (_confidence(network, given, labels, batch_size) for given in (images, adversarial))
    taken: NDArray[np.float32] = (before - after).clamp(0, 1).cpu().numpy()
    return taken


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
