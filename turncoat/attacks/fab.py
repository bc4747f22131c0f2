"""FAB: adversarial images of least norm, by steps to the linearised boundary that are pulled back to the image.

Croce & Hein 2020, arXiv 1907.02044, algorithm 1. One thing differs: an iterate that is adversarial is drawn back to the
image as in the paper, but the boundary stays linearised where the iterate was, so that an iteration needs one forward
and one backward pass where the paper's needs two and one.
"""

import torch
from torch import Tensor, nn

from .apgd import likely_classes
from .board import Board, Progress, Rows
from .engine import attacked, check, class_gradients, fallen, input_gradient
from .hyperplane import to_hyperplane
from .losses import objective, targeted_margin
from .threat import Threat, per_example

OVERSHOOT = 1.05  # eta: how far beyond the boundary an iterate lands
DRAWN_BACK = 0.9  # beta: where an adversarial iterate goes on, 0 the image and 1 where it is
BISECTIONS = 5  # of the way to the nearest adversarial image in the end, where the least norm is asked for
LARGEST_PULL = 0.1  # alpha_max: weight of the step taken from the image against that from the iterate


def fab_t(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    classes: int = 9,
    restarts: int = 1,
    minimal: bool = False,
    clean_logits: Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    mode: str = "eval",
    progress: Progress | None = None,
) -> Tensor:
    """FAB towards each of the `classes` most likely wrong classes (all of them where there are fewer).

    Args:
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64.
        restarts: runs; the first starts from the image, the others at random within half of epsilon.
        minimal: False: an example leaves once an adversarial image within epsilon is found; images without one come
            back as they were. True: epsilon does not bind; the adversarial image of least norm that was found.
        clean_logits: (n, k), where known; they save a forward pass.

    Returns: (n, c, h, w) float32. Costs at most restarts * classes * (steps + 1) forward, ... * steps backward passes.
    """
    check(images, labels, steps=steps, classes=classes, restarts=restarts)
    with attacked(model, mode, generator), torch.no_grad():
        board = Board(model, images, labels, progress=progress)
        aims = likely_classes(model(images) if clean_logits is None else clean_logits, labels, classes)
        return _search(board, aims, threat, steps, restarts, minimal, generator, batch_size)


def fab(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    restarts: int = 1,
    targets: Tensor | None = None,
    minimal: bool = False,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    mode: str = "eval",
    progress: Progress | None = None,
) -> Tensor:
    """FAB towards the class whose linearised boundary is nearest in each step, or towards `targets` (n,); as `fab_t`.

    Without targets a step costs one forward and k - 1 backward passes. With targets an image falls when it is
    classified as its own, and the boundary is that of the target with the class that is, in each step, ahead of others.
    """
    check(images, labels, targets=targets, steps=steps, restarts=restarts)
    with attacked(model, mode, generator), torch.no_grad():
        board = Board(model, images, labels, targets, progress)
        return _search(board, None, threat, steps, restarts, minimal, generator, batch_size)


def _search(
    board: Board,
    aims: Tensor | None,
    threat: Threat,
    steps: int,
    restarts: int,
    minimal: bool,
    generator: torch.Generator | None,
    batch_size: int | None,
) -> Tensor:
    for restart in range(restarts):
        for index, targets in board.batches(aims, batch_size):
            first = board.images[index]
            if restart:
                first = Threat(threat.norm, threat.epsilon / 2).random_start(first, generator)
            _run(board, index, targets, first, threat, steps, minimal)
    return board.adversarial


def _run(
    board: Board, index: Tensor, targets: Tensor | None, first: Tensor, threat: Threat, steps: int, minimal: bool
) -> None:
    images, labels = board.images[index], board.labels[index]
    s = Rows(index=index, targets=targets, images=images, labels=labels, x=first, best=images)
    s.nearest = images.new_full((len(index),), torch.inf)
    s.found = torch.zeros_like(labels, dtype=torch.bool)
    # fab_t: the class only names one of the label's boundaries; with targets of the board's own, these must beat all
    towards = _over_label if board.targets is None else objective("margin")
    for step in range(steps + 1):
        if step == steps:
            logits = board.model(s.x)
        elif s.targets is not None:
            normals, values, logits = input_gradient(board.model, s.x, towards, s.labels, s.targets, s.index)
        else:
            normals, values, logits = _nearest_boundary(board.model, s.x, s.labels, threat.norm)
        over = fallen(logits, s.labels, None if board.targets is None else s.targets)
        distance = threat.distance(s.x, s.images)
        s.put(over & (distance < s.nearest), best=s.x, nearest=distance)
        s.found = s.nearest <= threat.epsilon
        if step == steps:
            break
        back = torch.where(per_example(over, s.x), s.images + DRAWN_BACK * (s.x - s.images), s.x)
        height = values + (normals * (back - s.x)).flatten(1).sum(1)
        here = to_hyperplane(back, normals, height, threat.norm)
        height = values + (normals * (s.images - s.x)).flatten(1).sum(1)
        there = to_hyperplane(s.images, normals, height, threat.norm)
        near, far = threat.distance(here, torch.zeros_like(here)), threat.distance(there, torch.zeros_like(there))
        share = (near / (near + far).clamp_min(1e-12)).clamp_max(LARGEST_PULL)
        if board.targets is not None:  # towards the image, one boundary's step undoes another's: first over them all
            share = torch.where(s.nearest.isfinite(), share, 0.0)
        pull = per_example(share, here)
        s.x = ((1 - pull) * (back + OVERSHOOT * here) + pull * (s.images + OVERSHOOT * there)).clamp(0, 1)
        if not minimal and board.due(step + 1) and bool(s.found.any()):
            s.keep(board.record(s.index, s.best, torch.full_like(s.nearest, -torch.inf), s.found))
            if not len(s.index):
                return
    if minimal:
        _approach(board, s, threat)
        board.record(s.index, s.best, -s.nearest, torch.zeros_like(s.found))
    else:
        board.record(s.index, s.best, torch.full_like(s.nearest, -torch.inf), s.found)


def _over_label(logits: Tensor, labels: Tensor, targets: Tensor, index: Tensor | None) -> Tensor:
    return targeted_margin(logits, labels, targets)


def _approach(board: Board, s: Rows, threat: Threat) -> None:
    """Bisect the way from the image to the nearest adversarial image, for what the overshoot left."""
    inner, outer = torch.zeros_like(s.nearest), torch.ones_like(s.nearest)
    way = s.best - s.images
    for _ in range(BISECTIONS):
        share = (inner + outer) / 2
        x = s.images + per_example(share, way) * way
        over = fallen(board.model(x), s.labels, None if board.targets is None else s.targets) & s.nearest.isfinite()
        s.put(over, best=x, nearest=threat.distance(x, s.images))
        inner, outer = torch.where(over, inner, share), torch.where(over, share, outer)


def _nearest_boundary(model: nn.Module, images: Tensor, labels: Tensor, norm: str) -> tuple[Tensor, Tensor, Tensor]:
    """Normal (n, ...) and height (n,) of the boundary to the class that is linearly nearest, and the logits (n, k)."""
    gradients, logits = class_gradients(model, images)
    rows = torch.arange(len(labels), device=labels.device)
    normals = gradients - gradients[labels, rows][None]
    values = (logits - logits.gather(1, labels[:, None])).t()
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    length = torch.linalg.vector_norm(normals.flatten(2), dual, dim=2).clamp_min(1e-12)
    distance = (values.abs() / length).nan_to_num(torch.inf).scatter(0, labels[None], torch.inf)
    nearest = distance.argmin(0)
    return normals[nearest, rows], values[nearest, rows], logits
