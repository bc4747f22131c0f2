"""DeepFool: straight to the nearest linearised decision boundary, again and again (Moosavi-Dezfooli et al. 2016).

arXiv 1511.04599, algorithm 2. For l1, which the paper leaves out, a step moves few coordinates and must mind the box.
"""

import torch
from torch import Tensor, nn

from .apgd import likely_classes
from .board import Board, Rows
from .engine import attacked, check, class_gradients, fallen
from .hyperplane import to_hyperplane
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
        targets: (n,) class to reach; None means any but the label.
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
    s = Rows(index=index, targets=targets, images=board.images[index], labels=board.labels[index])
    s.x, s.change = s.images, torch.zeros_like(s.images)
    for step in range(steps + 1):
        if step == steps:
            logits = board.model(s.x)
        else:
            others, gradients, logits = _boundaries(board, s, classes, step)
        fell = fallen(logits, s.labels, s.targets)
        if bool(fell.any()) or step == steps:
            losses = torch.full_like(fell, step, dtype=torch.float32)  # the last iterate counts
            kept = board.record(s.index, s.x, losses, fell)
            s.keep(kept)
            if not len(s.index) or step == steps:
                return
            others, gradients, logits = others[:, kept], gradients[:, kept], logits[kept]
        heights = (logits.gather(1, others.t()) - logits.gather(1, s.labels[:, None])).t()  # all below zero
        changes = torch.stack(
            [_step(s.x, normal, height - BEYOND, norm) for normal, height in zip(gradients, heights, strict=True)]
        )
        lengths = Threat(norm, 1.0).distance(changes.flatten(0, 1), torch.zeros_like(changes.flatten(0, 1)))
        lengths = torch.where(lengths > 0, lengths, torch.inf).view(changes.shape[:2])  # a zero gradient leads nowhere
        nearest = lengths.argmin(0)
        s.change = s.change + changes[nearest, torch.arange(len(nearest), device=nearest.device)]
        s.x = (s.images + (1 + overshoot) * s.change).clamp(0, 1)


def _boundaries(board: Board, s: Rows, classes: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Classes (c, n) to be reached, normals (c, n, ...) of their boundaries with the label, logits (n, k)."""
    if s.targets is not None:
        chosen = torch.stack([s.targets, s.labels], 1)
    else:
        if step == 0:  # the candidates are those of the image itself
            s.others = likely_classes(board.model(s.x), s.labels, classes)
        chosen = torch.cat([s.others, s.labels[:, None]], 1)
    gradients, logits = class_gradients(board.model, s.x, chosen)
    return chosen[:, :-1].t(), gradients[:-1] - gradients[-1:], logits


def _step(points: Tensor, normals: Tensor, heights: Tensor, norm: str) -> Tensor:
    """The smallest change that brings (n, ...) points at `heights` (n,) over hyperplanes onto them."""
    if norm == "l1":
        return to_hyperplane(points, normals, heights, norm)
    normals, heights = normals.nan_to_num(0, 0, 0), heights.nan_to_num(0, 0, 0)
    if norm == "linf":
        return normals.sign() * per_example(-heights / normals.abs().flatten(1).sum(1).clamp_min(1e-12), normals)
    return normals * per_example(-heights / normals.square().flatten(1).sum(1).clamp_min(1e-24), normals)
