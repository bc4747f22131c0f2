"""PGD: repeated gradient steps, each brought back into the threat (Madry et al. 2018, arXiv 1706.06083)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .board import Board, Rows
from .compiled import compiled_step
from .engine import attacked, check, input_gradient
from .losses import Loss, Objective, objective
from .threat import Projection, Threat, ascend, normal

STARTS = ("uniform", "gaussian", "none")
Step = Callable[..., tuple[Tensor, Tensor, Tensor]]
GAUSSIAN = 0.001  # standard deviation of the start that TRADES uses, and what grew out of it


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    steps: int,
    relative_step: float = 0.25,
    start: str = "uniform",
    restarts: int = 1,
    loss: str | Loss = "ce",
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
    mode: str = "eval",
    early_stop: bool = False,
    compile: bool = False,
) -> Tensor:
    """Projected gradient ascent on `loss`.

    Args:
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64.
        relative_step: step size in units of epsilon.
        start: "uniform" in the ball, "gaussian" (0.001 * N(0, 1) from the image), or "none" (the image).
        restarts: with `early_stop`, further runs for the examples still standing; each needs a random start.
        loss: "ce", "margin", "dlr", or a function `loss(logits, labels, index)` to be maximised (see losses.py).
        targets: (n,) class to reach; None means any but the label.
        generator: source of the random start; the global generators are left alone.
        mode: "eval" or "train", set for the attack and restored.
        early_stop: False, for training: the last iterate, exactly `steps` forward and backward passes, no host
            synchronisation. True, for evaluation: examples leave when they fall; the result is the iterate that fell,
            else the one of highest loss, at one forward pass more.
        compile: make each step one compiled function (see compiled.py): the same up to rounding, for long runs.

    Returns: (n, c, h, w) float32, within the threat to 1e-6.
    """
    check(images, labels, targets=targets, steps=steps, restarts=restarts)
    if not relative_step > 0:
        raise ValueError(f"relative_step: {relative_step!r} is not allowed; give a size above 0, in units of epsilon")
    if restarts > 1 and (start == "none" or not early_stop):
        raise ValueError("restarts: more than one needs a random start and early_stop=True")
    maximised, advance, size = objective(loss), compiled_step if compile else plain_step, relative_step * threat.epsilon
    with attacked(model, mode, generator), torch.no_grad():
        if not early_stop:
            project = threat.projection(images)
            adversarial = project(begin(images, threat, start, generator))
            for _ in range(steps):
                adversarial, _, _ = advance(model, adversarial, project, maximised, labels, targets, None, threat, size)
            return adversarial
        board = Board(model, images, labels, targets)
        for _ in range(restarts):
            for index, aims in board.batches():
                first = threat.project(begin(images[index], threat, start, generator), images[index])
                _run(board, index, aims, first, threat, maximised, steps, advance, size)
        return board.adversarial


def plain_step(
    model: nn.Module,
    x: Tensor,
    project: Projection,
    maximised: Objective,
    labels: Tensor,
    targets: Tensor | None,
    index: Tensor | None,
    threat: Threat,
    size: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of length `size` from `x`: the next iterates (n, ...); the losses (n,) and logits (n, k) of `x`."""
    gradient, losses, logits = input_gradient(model, x, maximised, labels, targets, index)
    return project(ascend(x, gradient, threat, size)), losses, logits


def _run(
    board: Board,
    index: Tensor,
    targets: Tensor | None,
    first: Tensor,
    threat: Threat,
    maximised: Objective,
    steps: int,
    advance: Step,
    size: float,
) -> None:
    """One run from `first`, for the images `index` of the board, which leave when they fall."""
    images, labels = board.images[index], board.labels[index]
    s = Rows(index=index, targets=targets, images=images, labels=labels, x=first, best=first)
    s.found, s.highest = torch.zeros_like(index, dtype=torch.bool), images.new_full((len(index),), -torch.inf)
    project = threat.projection(images)
    for done in range(steps + 1):
        if done < steps:
            ahead, losses, logits = advance(
                board.model, s.x, project, maximised, s.labels, s.targets, s.index, threat, size
            )
        else:
            logits = board.model(s.x)
            losses = maximised(logits, s.labels, s.targets, s.index)
        fell = board.fell(logits, s.labels, s.targets)
        s.put(~s.found & (fell | (losses > s.highest)), best=s.x, highest=losses)
        s.found |= fell
        if done == steps:
            break
        s.x = ahead
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
