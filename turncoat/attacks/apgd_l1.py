"""APGD for l1: sparse steps whose sparsity follows that of the best point (Croce & Hein 2021, algorithm 1).

arXiv 2103.01208. The search starts in balls of 3 and 2 epsilon, which are easier, and moves into the ball itself.
"""

import torch
from torch import Tensor

from .board import Board, Rows, shown
from .engine import input_gradient
from .losses import Objective
from .threat import Threat, per_example

PHASES = ((3, 0.3), (2, 0.3), (1, 0.4))  # radius in epsilon, share of the steps
DENSITY = 0.2  # share of the coordinates that the first step of a phase moves
LOOK = 0.04  # share of the phase's steps between two looks at the sparsity
SHRINK, SMALLEST = 1.5, 10  # the step is divided by the first, down to a tenth of the radius


def run_l1(
    board: Board, index: Tensor, targets: Tensor | None, first: Tensor, threat: Threat, maximised: Objective, steps: int
) -> None:
    """One run of `steps` steps from `first`, for the images `index` of the board."""
    s = Rows(index=index, targets=targets, images=board.images[index], labels=board.labels[index], x=first)
    lengths = [round(share * steps) for _, share in PHASES[:-1]]
    lengths.append(steps - sum(lengths))
    for (radius, _), length in zip(PHASES, lengths, strict=True):
        if length and len(s.index):
            wide = Threat("l1", radius * threat.epsilon)
            s.x = wide.project(s.x, s.images)
            _phase(board, s, wide, maximised, length, inside=radius == 1)


def _phase(board: Board, s: Rows, threat: Threat, maximised: Objective, steps: int, *, inside: bool) -> None:
    """`steps` steps in the ball of `threat`, from s.x; leaves the best point in s.x. Only `inside` counts as fallen."""
    s.best = s.hit = s.x
    s.gradient, s.highest, logits = input_gradient(board.model, s.x, maximised, s.labels, s.targets, s.index)
    s.best_gradient = s.gradient
    s.found = _fell(board, s, logits, inside)
    s.size = torch.full_like(s.highest, threat.epsilon)
    s.density, s.density_before = torch.full_like(s.highest, DENSITY), torch.ones_like(s.highest)
    look = max(1, int(LOOK * steps))
    for step in range(1, steps + 1):
        if inside and board.due(step) and bool(s.found.any()):
            s.keep(board.record(s.index, shown(s), s.highest, s.found))
            if not len(s.index):
                return
            s.found = torch.zeros_like(s.found)
        s.x = threat.project(s.x + per_example(s.size, s.x) * sparse_direction(s.gradient, s.density), s.images)
        if step < steps:
            s.gradient, losses, logits = input_gradient(board.model, s.x, maximised, s.labels, s.targets, s.index)
        else:
            logits = board.model(s.x)
            losses = maximised(logits, s.labels, s.targets, s.index)
        now = _fell(board, s, logits, inside)
        s.put(now, hit=s.x)
        s.found |= now
        s.put(losses > s.highest, best=s.x, best_gradient=s.gradient, highest=losses)
        if step % look == 0:
            density = ((s.best - s.images).flatten(1) != 0).float().mean(1)
            sparser = density / s.density_before < 0.95
            size = torch.where(sparser, threat.epsilon, (s.size / SHRINK).clamp_min(threat.epsilon / SMALLEST))
            s.size, s.density, s.density_before = size, density / 1.5, density
            s.put(sparser, x=s.best, gradient=s.best_gradient)
    s.x = s.best
    if inside:
        board.record(s.index, shown(s), s.highest, s.found)


def _fell(board: Board, s: Rows, logits: Tensor, inside: bool) -> Tensor:
    targets = None if board.targets is None else s.targets
    return board.fell(logits, s.labels, targets) if inside else torch.zeros_like(s.labels, dtype=torch.bool)


def sparse_direction(gradient: Tensor, density: Tensor) -> Tensor:
    """Signs of the largest gradients, a share `density` (n,) of all coordinates, with l1 norm 1."""
    flat = gradient.nan_to_num(0, 0, 0).flatten(1)
    count = (density * flat.shape[1]).long().clamp(1, flat.shape[1])
    threshold = flat.abs().sort(dim=1, descending=True).values.gather(1, count[:, None] - 1)
    signs = flat.sign() * (flat.abs() >= threshold)
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)
