"""APGD: gradient ascent that finds its own step size (Croce & Hein 2020, arXiv 2003.01690, algorithm 1).

For l1 the step is sparse and the sparsity adapts; see apgd_l1.py.
"""

import math

import torch
from torch import Tensor, nn

from .apgd_l1 import run_l1
from .board import Board, Progress, Rows, shown
from .engine import attacked, check, input_gradient
from .losses import Loss, Objective, objective
from .threat import Threat, per_example

MOMENTUM = 0.75  # weight of the new step against the one before
RISES = 0.75  # a stretch in which fewer steps than this share raise the loss asks for a smaller step


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    restarts: int = 1,
    loss: str | Loss = "ce",
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    mode: str = "eval",
    progress: Progress | None = None,
) -> Tensor:
    """APGD from random starts; examples leave when they fall.

    Args:
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64.
        loss: "ce", "margin", "dlr" (targeted DLR where there are targets), or a function (see losses.py).
        targets: (n,) class to reach; None means any but the label.
        batch_size: items a forward pass, by default n.
        progress: called with (items still to be attacked, images standing) before each batch.

    Returns: (n, c, h, w) float32: an iterate that fell, else the one of highest loss. Costs at most
        restarts * (steps + 1) forward and restarts * steps backward passes.
    """
    check(images, labels, targets=targets, steps=steps, restarts=restarts)
    with attacked(model, mode, generator), torch.no_grad():
        board = Board(model, images, labels, targets, progress)
        for _ in range(restarts):
            for index, aims in board.batches(batch_size=batch_size):
                _run(board, index, aims, threat, objective(loss), steps, generator)
        return board.adversarial


def apgd_t(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    classes: int = 9,
    loss: str | Loss = "dlr",
    clean_logits: Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    mode: str = "eval",
    progress: Progress | None = None,
) -> Tensor:
    """APGD towards each of the `classes` most likely wrong classes (all of them where there are fewer), as `apgd`.

    An image is done when it is misclassified in any way. `clean_logits` (n, k), where known, save a forward pass.
    """
    check(images, labels, steps=steps, classes=classes)
    with attacked(model, mode, generator), torch.no_grad():
        board = Board(model, images, labels, progress=progress)
        aims = likely_classes(model(images) if clean_logits is None else clean_logits, labels, classes)
        for index, targets in board.batches(aims, batch_size):
            _run(board, index, targets, threat, objective(loss), steps, generator)
        return board.adversarial


def likely_classes(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The `count` most likely classes other than the label, (n, min(count, k - 1))."""
    others = logits.float().scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(count, logits.shape[1] - 1), dim=1).indices


def _run(
    board: Board,
    index: Tensor,
    targets: Tensor | None,
    threat: Threat,
    maximised: Objective,
    steps: int,
    generator: torch.Generator | None,
) -> None:
    images, labels = board.images[index], board.labels[index]
    first = threat.random_start(images, generator)
    if threat.norm == "l1":
        run_l1(board, index, targets, first, threat, maximised, steps)
        return
    s = Rows(index=index, targets=targets, images=images, labels=labels, x=first, previous=first, best=first, hit=first)
    s.gradient, s.losses, logits = input_gradient(board.model, s.x, maximised, labels, targets, index)
    s.best_gradient, s.highest, s.highest_before = s.gradient, s.losses, s.losses
    s.found = fell(board, s, logits)
    s.size = torch.full_like(s.losses, 2 * threat.epsilon)
    s.rises, s.shrunk = torch.zeros_like(s.losses), torch.zeros_like(s.found)
    project, looks, last_look = threat.projection(images), checkpoints(steps), 0
    for step in range(1, steps + 1):
        if board.due(step) and bool(s.found.any()):
            s.keep(board.record(s.index, shown(s), s.highest, s.found))
            if not len(s.index):
                return
            s.found = torch.zeros_like(s.found)
            project = threat.projection(s.images)
        ahead = project(s.x + per_example(s.size, s.x) * direction(s.gradient, threat))
        if step > 1:
            ahead = project(s.x + MOMENTUM * (ahead - s.x) + (1 - MOMENTUM) * (s.x - s.previous))
        s.previous, s.x, before = s.x, ahead, s.losses
        if step < steps:
            s.gradient, s.losses, logits = input_gradient(board.model, s.x, maximised, s.labels, s.targets, s.index)
        else:
            logits = board.model(s.x)
            s.losses = maximised(logits, s.labels, s.targets, s.index)
        now = fell(board, s, logits)
        s.put(now, hit=s.x)
        s.found |= now
        s.rises = s.rises + (s.losses > before)
        s.put(s.losses > s.highest, best=s.x, best_gradient=s.gradient, highest=s.losses)
        if step in looks:
            stalled = ~s.shrunk & (s.highest <= s.highest_before)
            s.shrunk = (s.rises < RISES * (step - last_look)) | stalled
            s.put(s.shrunk, size=s.size / 2, x=s.best, gradient=s.best_gradient)
            s.rises, s.highest_before, last_look = torch.zeros_like(s.rises), s.highest, step
    board.record(s.index, shown(s), s.highest, s.found)


def fell(board: Board, s: Rows, logits: Tensor) -> Tensor:
    """Who has fallen: an image attacked towards many classes in turn falls to any; one with a target only to that."""
    return board.fell(logits, s.labels, None if board.targets is None else s.targets)


def direction(gradient: Tensor, threat: Threat) -> Tensor:
    """Steepest ascent of length 1 in the threat's norm (linf, l2); NaN gradients count as zero."""
    if threat.norm == "linf":
        return gradient.sign()
    gradient = gradient.nan_to_num(0, 0, 0)
    return gradient / per_example(torch.linalg.vector_norm(gradient.flatten(1), dim=1).clamp_min(1e-12), gradient)


def checkpoints(steps: int) -> set[int]:
    """The steps that reconsider the step size: at 22 % of all, then in stretches shorter by 3 %, at least 6 %."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return {math.ceil(share * steps) for share in shares[1:]}
