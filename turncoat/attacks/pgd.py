"""PGD: repeated gradient steps, each brought back into the threat (Madry et al. 2018, arXiv 1706.06083).

The l1 step moves the few coordinates with the largest gradients (Tramer & Boneh 2019, arXiv 1904.13000).
"""

import torch
from torch import Tensor, nn

from .engine import attacked, check, fallen, input_gradient
from .losses import Loss, objective
from .threat import Threat, normal, per_example

STARTS = ("uniform", "gaussian", "none")
GAUSSIAN = 0.001  # standard deviation of the start that TRADES and MART use
SPARSITY = 0.01  # share of the coordinates that an l1 step moves


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    steps: int,
    step: float = 0.25,
    start: str = "uniform",
    restarts: int = 1,
    loss: str | Loss = "ce",
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
    mode: str = "eval",
    early_stop: bool = False,
) -> Tensor:
    """Projected gradient ascent on `loss`.

    Args:
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64.
        step: step size in units of epsilon.
        start: "uniform" in the ball, "gaussian" (0.001 * N(0, 1) from the image), or "none" (the image).
        restarts: with `early_stop`, further runs for the examples still standing; each needs a random start.
        loss: "ce", "margin", "dlr", or a function `loss(logits, labels, index)` to be maximised (see losses.py).
        targets: (n,) class to reach; None means any but the label.
        generator: source of the random start; the global generators are left alone.
        mode: "eval" or "train", set for the attack and restored.
        early_stop: False, for training: the last iterate, exactly `steps` forward and backward passes, no host
            synchronisation. True, for evaluation: examples leave when they fall; the result is the iterate that fell,
            else the one of highest loss, at one forward pass more.

    Returns: (n, c, h, w) float32, within the threat to 1e-6.
    """
    check(images, labels, targets=targets, steps=steps, restarts=restarts)
    if not step > 0:
        raise ValueError(f"step: {step!r} is not allowed; give a step size above 0, in units of epsilon")
    if restarts > 1 and (start == "none" or not early_stop):
        raise ValueError("restarts: more than one needs a random start and early_stop=True")
    maximised = objective(loss, targets)
    with attacked(model, mode, generator), torch.no_grad():
        if not early_stop:
            project = threat.projection(images)
            adversarial = project(begin(images, threat, start, generator))
            for _ in range(steps):
                gradient, _, _ = input_gradient(model, adversarial, maximised, labels, None)
                adversarial = project(ascend(adversarial, gradient, threat, step * threat.epsilon))
            return adversarial
        best, highest = images.clone(), images.new_full((len(images),), -torch.inf)
        standing = torch.arange(len(images), device=images.device)
        for _ in range(restarts):
            if len(standing):
                first = begin(images[standing], threat, start, generator)
                standing = _run(
                    model, images, labels, threat, first, standing, best, highest, maximised, targets, steps, step
                )
        return best


def _run(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    adversarial: Tensor,
    index: Tensor,
    best: Tensor,
    highest: Tensor,
    maximised: Loss,
    targets: Tensor | None,
    steps: int,
    step: float,
) -> Tensor:
    """One run from `adversarial` for the examples `index`; updates `best` and `highest`, returns who still stands."""
    every = 1 if images.device.type == "cpu" else 5  # looking who has fallen stalls a device
    project, chosen = threat.projection(images[index]), labels[index]
    adversarial = project(adversarial)
    down = torch.zeros_like(index, dtype=torch.bool)
    for done in range(steps + 1):
        if done < steps:
            gradient, losses, logits = input_gradient(model, adversarial, maximised, chosen, index)
        else:
            logits = model(adversarial)
            losses = maximised(logits, chosen, index)
        fell = fallen(logits, chosen, None if targets is None else targets[index]) & ~down
        better = fell | ((losses > highest[index]) & ~down)
        best[index] = torch.where(per_example(better, best), adversarial, best[index])
        highest[index] = torch.where(better, losses, highest[index])
        down |= fell
        if done == steps:
            return index[~down]
        adversarial = project(ascend(adversarial, gradient, threat, step * threat.epsilon))
        if done % every == 0 and bool(down.any()):
            keep = ~down
            index, adversarial, chosen, down = index[keep], adversarial[keep], chosen[keep], down[keep]
            if not len(index):
                break
            project = threat.projection(images[index])
    return index


def begin(images: Tensor, threat: Threat, start: str, generator: torch.Generator | None) -> Tensor:
    """Where an attack starts, by name."""
    if start == "uniform":
        return threat.random_start(images, generator)
    if start == "gaussian":
        return images + GAUSSIAN * normal(images, generator)
    if start == "none":
        return images
    raise ValueError(f"start: {start!r} is unknown; choose one of {', '.join(STARTS)}")


def ascend(adversarial: Tensor, gradient: Tensor, threat: Threat, size: float) -> Tensor:
    """One step of length `size` in the norm of the threat along the gradient; NaN gradients count as zero."""
    if threat.norm == "linf":
        return adversarial.add(gradient.sign(), alpha=size)  # sign(NaN) is 0
    gradient = gradient.nan_to_num(0, 0, 0)
    if threat.norm == "l2":
        length = torch.linalg.vector_norm(gradient.flatten(1), dim=1).clamp_min(1e-12)
        return adversarial + gradient * per_example(size / length, gradient)
    flat, at = gradient.flatten(1), adversarial.flatten(1)
    free = torch.where(flat > 0, at < 1, at > 0)  # a coordinate at the edge of the box cannot move outwards
    strength = flat.abs() * free
    count = max(1, round(SPARSITY * flat.shape[1]))
    largest = strength.topk(count, dim=1)
    signs = flat.gather(1, largest.indices).sign() * (largest.values > 0)
    moves = torch.zeros_like(flat).scatter_(1, largest.indices, signs * (size / count))
    return adversarial + moves.view_as(adversarial)
