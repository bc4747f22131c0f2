"""Universal perturbations: one change of the pixels that turns most images, towards one class or away from theirs.

Two forms: accumulated DeepFool steps (Moosavi-Dezfooli et al. 2017, arXiv 1610.08401, algorithm 1; towards a class as
in Wang et al. 2021, arXiv 2008.07838), and sign steps on a clamped loss (Shafahi et al. 2020, arXiv 1811.11304).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .deepfool import deepfool
from .engine import attacked, check, fallen, input_gradient
from .losses import objective
from .threat import Threat


def universal_deepfool(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    target: int | None = None,
    passes: int = 10,
    steps: int = 20,
    overshoot: float = 0.02,
    success: float = 0.8,
    batch_size: int = 1,
    generator: torch.Generator,
    mode: str = "eval",
    progress: Callable[[int, float], None] | None = None,
) -> Tensor:
    """Accumulate, over the images, the least step that turns each image the perturbation does not turn yet.

    Args:
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64. Images of class `target` are left out.
        target: class to reach; None means any but the label.
        passes: over the images, at most; it ends earlier once the share `success` of them is turned.
        steps, overshoot: of the DeepFool step.
        batch_size: images whose steps are averaged into one; 1 is the paper's, more is faster.
        progress: called after each pass with (its number, share of images turned).

    Returns: (c, h, w) float32 perturbation within the ball of `threat`; `perturb` applies it.
    """
    check(images, labels, passes=passes, steps=steps, batch_size=batch_size)
    images, labels = _without(images, labels, target)
    change = torch.zeros_like(images[0])
    with attacked(model, mode, generator), torch.no_grad():
        for number in range(passes):
            for rows in torch.randperm(len(images), generator=generator, device=generator.device).split(batch_size):
                rows = rows.to(images.device)
                batch, classes = perturb(images[rows], change), labels[rows]
                goals = None if target is None else torch.full_like(classes, target)
                turned = deepfool(
                    model,
                    batch,
                    classes,
                    threat,
                    steps=steps,
                    overshoot=overshoot,
                    targets=goals,
                    minimal=True,
                    mode=mode,
                )
                change = _inside(change + (turned - batch).mean(0), threat)
            share = float(universal_success(model, images, labels, change, target=target))
            if progress:
                progress(number + 1, share)
            if share >= success:
                break
    return change


def universal_sgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    target: int | None = None,
    passes: int = 10,
    relative_step: float = 0.1,
    clamp: float = 10.0,
    loss: str = "margin",
    success: float = 1.0,
    batch_size: int = 128,
    generator: torch.Generator,
    mode: str = "eval",
    progress: Callable[[int, float], None] | None = None,
) -> Tensor:
    """Sign steps along the mean gradient of the batch, of a loss that stops counting images once it exceeds `clamp`.

    Args: as `universal_deepfool`; `relative_step` is in units of epsilon, `clamp` in units of the loss ("margin", "ce",
        "dlr").
    """
    check(images, labels, passes=passes, batch_size=batch_size)
    images, labels = _without(images, labels, target)
    maximised = objective(loss)
    change = torch.zeros_like(images[0])

    def clamped(logits: Tensor, classes: Tensor, goals: Tensor | None) -> Tensor:
        return maximised(logits, classes, goals, None).clamp_max(clamp)

    with attacked(model, mode, generator), torch.no_grad():
        for number in range(passes):
            for rows in torch.randperm(len(images), generator=generator, device=generator.device).split(batch_size):
                rows = rows.to(images.device)
                classes = labels[rows]
                goals = None if target is None else torch.full_like(classes, target)
                gradient, _, _ = input_gradient(model, perturb(images[rows], change), clamped, classes, goals)
                mean = gradient.nan_to_num(0, 0, 0).mean(0)
                length = relative_step * threat.epsilon
                if threat.norm == "linf":
                    change = _inside(change + length * mean.sign(), threat)
                else:
                    change = _inside(change + length * mean / mean.norm().clamp_min(1e-12), threat)
            share = float(universal_success(model, images, labels, change, target=target))
            if progress:
                progress(number + 1, share)
            if share >= success:
                break
    return change


def perturb(images: Tensor, change: Tensor) -> Tensor:
    """The images with the perturbation (c, h, w) applied, cut to [0, 1]."""
    return (images + change).clamp(0, 1)


def universal_success(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    change: Tensor,
    *,
    target: int | None = None,
    batch_size: int = 1000,
) -> Tensor:
    """Share of images turned, a scalar: classified as `target` among those of other classes, else misclassified."""
    images, labels = _without(images, labels, target)
    turned = torch.zeros((), device=images.device)
    with attacked(model), torch.no_grad():
        for batch, classes in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            goals = None if target is None else torch.full_like(classes, target)
            turned += fallen(model(perturb(batch, change)), classes, goals).sum()
    return turned / len(images)


def _without(images: Tensor, labels: Tensor, target: int | None) -> tuple[Tensor, Tensor]:
    if target is None:
        return images, labels
    others = labels != target
    if not bool(others.any()):
        raise ValueError(f"images: all are of the target class {target}; give images of other classes")
    return images[others], labels[others]


def _inside(change: Tensor, threat: Threat) -> Tensor:
    """Project the perturbation itself onto the ball (the box is a matter of each image)."""
    if threat.norm == "linf":
        return change.clamp(-threat.epsilon, threat.epsilon)
    middle = torch.full_like(change, 0.5)[None]
    scale = max(1.0, 4 * float(change.abs().max()))  # the ball, shrunk until the box does not matter
    shrunk = Threat(threat.norm, threat.epsilon / scale).project(middle + change / scale, middle)
    return ((shrunk - middle) * scale)[0]
