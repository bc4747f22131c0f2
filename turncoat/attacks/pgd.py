"""PGD: repeated gradient steps, each brought back into the threat (Madry et al. 2018, arXiv 1706.06083).

The l1 step moves the few coordinates with the largest gradients (Tramer & Boneh 2019, arXiv 1904.13000).
"""

import torch
from torch import Tensor, nn

from .board import Board, Rows
from .engine import attacked, check, input_gradient
from .losses import Loss, Objective, objective
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
    maximised = objective(loss)
    with attacked(model, mode, generator), torch.no_grad():
        if not early_stop:
            project = threat.projection(images)
            adversarial = project(begin(images, threat, start, generator))
            for _ in range(steps):
                gradient, _, _ = input_gradient(model, adversarial, maximised, labels, targets, None)
                adversarial = project(ascend(adversarial, gradient, threat, step * threat.epsilon))
            return adversarial
        board = Board(model, images, labels, targets)
        for _ in range(restarts):
            for index, aims in board.batches():
                first = threat.project(begin(images[index], threat, start, generator), images[index])
                _run(board, index, aims, first, threat, maximised, steps, step * threat.epsilon)
        return board.adversarial


def _run(
    board: Board,
    index: Tensor,
    targets: Tensor | None,
    first: Tensor,
    threat: Threat,
    maximised: Objective,
    steps: int,
    size: float,
) -> None:
    """One run from `first`, for the images `index` of the board, which leave when they fall."""
    images, labels = board.images[index], board.labels[index]
    s = Rows(index=index, targets=targets, images=images, labels=labels, x=first, best=first)
    s.found, s.highest = torch.zeros_like(index, dtype=torch.bool), images.new_full((len(index),), -torch.inf)
    project = threat.projection(images)
    for done in range(steps + 1):
        if done < steps:
            gradient, losses, logits = input_gradient(board.model, s.x, maximised, s.labels, s.targets, s.index)
        else:
            logits = board.model(s.x)
            losses = maximised(logits, s.labels, s.targets, s.index)
        fell = board.fell(logits, s.labels, s.targets)
        s.put(~s.found & (fell | (losses > s.highest)), best=s.x, highest=losses)
        s.found |= fell
        if done == steps:
            break
        s.x = project(ascend(s.x, gradient, threat, size))
        if board.due(done + 1) and bool(s.found.any()):
            s.keep(board.record(s.index, s.best, s.highest, s.found))
            if not len(s.index):
                return
            s.found = torch.zeros_like(s.found)
            project = threat.projection(s.images)
    board.record(s.index, s.best, s.highest, s.found)


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
