"""DeepFool: straight to the nearest linearised decision boundary, again and again (Moosavi-Dezfooli et al. 2016).

arXiv 1511.04599, algorithm 2. For l1, which the paper leaves out, a step moves few coordinates and must mind the box.
"""

import torch
from torch import Tensor, nn

from .apgd import likely_classes
from .board import Board, Rows
from .engine import attacked, check, class_gradients, fallen, input_gradient
from .hyperplane import to_hyperplane
from .losses import objective
from .threat import Threat, per_example

BEYOND = 1e-4  # height to be gained over the boundary, so that the step does not end on it


def deepfool(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    steps: int = 50,
    classes: int = 9,
    overshoot: float = 0.02,
    targets: Tensor | None = None,
    minimal: bool = False,
    generator: torch.Generator | None = None,
    mode: str = "eval",
) -> Tensor:
    """Minimal-norm steps until the class changes; examples leave when it does.

    Args:
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64.
        classes: number of most likely wrong classes whose boundaries are looked at.
        overshoot: how much farther than the boundary the whole perturbation reaches, as a share of it.
        targets: (n,) class to reach, by the boundary with whichever other class is ahead; None: any but the label.
        minimal: False: the result is projected onto the threat (where it may not be adversarial). True: epsilon does
            not bind, only the norm counts.

    Returns: (n, c, h, w) float32. A step costs one forward and as many backward passes as boundaries are looked at.
    """
    check(images, labels, targets=targets, steps=steps, classes=classes)
    with attacked(model, mode, generator), torch.no_grad():
        board = Board(model, images, labels, targets)
        for index, aims in board.batches():
            _run(board, index, aims, threat.norm, steps, classes, overshoot)
        return board.adversarial if minimal else threat.project(board.adversarial, images)


def _run(
    board: Board, index: Tensor, targets: Tensor | None, norm: str, steps: int, classes: int, overshoot: float
) -> None:
    images, labels = board.images[index], board.labels[index]
    s = Rows(index=index, targets=targets, images=images, labels=labels, x=images, change=torch.zeros_like(images))
    # the candidates are those of the image itself
    s.others = likely_classes(board.model(images), labels, classes) if targets is None else None
    s.found = torch.zeros_like(labels, dtype=torch.bool)
    for step in range(steps):
        normals, heights, logits = _boundaries(board, s)
        s.found = s.found | fallen(logits, s.labels, s.targets)
        if board.due(step) and bool(s.found.any()):
            kept = board.record(s.index, s.x, torch.full_like(s.found, step, dtype=torch.float32), s.found)
            s.keep(kept)
            if not len(s.index):
                return
            normals, heights, s.found = normals[:, kept], heights[:, kept], torch.zeros_like(s.found)
        changes = torch.stack(
            [_step(s.x, normal, height - BEYOND, norm) for normal, height in zip(normals, heights, strict=True)]
        )
        lengths = Threat(norm, 1.0).distance(changes.flatten(0, 1), torch.zeros_like(changes.flatten(0, 1)))
        lengths = torch.where(lengths > 0, lengths, torch.inf).view(changes.shape[:2])  # a zero gradient leads nowhere
        nearest = lengths.argmin(0)
        s.change = s.change + changes[nearest, torch.arange(len(nearest), device=nearest.device)]
        s.put(~s.found, x=(s.images + (1 + overshoot) * s.change).clamp(0, 1))
    s.found = s.found | fallen(board.model(s.x), s.labels, s.targets)
    board.record(s.index, s.x, torch.full_like(s.found, steps, dtype=torch.float32), s.found)  # the last iterate counts


def _boundaries(board: Board, s: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Normals (c, n, ...) of the boundaries to be crossed, heights (c, n) over them (below zero), logits (n, k)."""
    if s.targets is not None:  # the target must beat every class: the boundary is that with the one ahead
        normal, height, logits = input_gradient(board.model, s.x, objective("margin"), s.labels, s.targets, None)
        return normal[None], height[None], logits
    gradients, logits = class_gradients(board.model, s.x, torch.cat([s.others, s.labels[:, None]], 1))
    heights = logits.gather(1, s.others) - logits.gather(1, s.labels[:, None])
    return gradients[:-1] - gradients[-1:], heights.t(), logits


def _step(points: Tensor, normals: Tensor, heights: Tensor, norm: str) -> Tensor:
    """The smallest change that brings (n, ...) points at `heights` (n,) over hyperplanes onto them."""
    if norm == "l1":
        return to_hyperplane(points, normals, heights, norm)
    normals, heights = normals.nan_to_num(0, 0, 0), heights.nan_to_num(0, 0, 0)
    if norm == "linf":
        return normals.sign() * per_example(-heights / normals.abs().flatten(1).sum(1).clamp_min(1e-12), normals)
    return normals * per_example(-heights / normals.square().flatten(1).sum(1).clamp_min(1e-24), normals)
