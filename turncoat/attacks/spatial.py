"""Attacks that move pixels instead of changing them: a smooth flow, or one rotation and shift of the whole image.

StAdv: Xiao et al. 2018, arXiv 1801.02612; rotations and translations: Engstrom et al. 2019, arXiv 1712.02779.
No norm ball bounds these: `threat` is taken for the common signature and not used.
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .board import Board, Rows
from .engine import attacked, check
from .losses import margin, objective
from .threat import Threat

ADAM = (0.9, 0.999)  # how much its running means keep: of the gradient, of its square


def stadv(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat | None = None,
    *,
    steps: int = 50,
    step: float = 0.1,
    pixels: float = 1.0,
    smoothness: float = 0.05,
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
    mode: str = "eval",
) -> Tensor:
    """Adam on a flow field that maximises the margin and stays smooth; the pixels are read where the flow points.

    Examples leave when they fall.

    Args:
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64.
        step: learning rate, in pixels.
        pixels: largest displacement along each axis.
        smoothness: weight of the flow's roughness (tau; mean over pixels, where the paper sums).
        targets: (n,) class to reach; None means any but the label.

    Returns: (n, c, h, w) float32 in [0, 1]: the image with the first flow that turned it, else the highest margin.
    """
    check(images, labels, targets=targets, steps=steps)
    with attacked(model, mode, generator), torch.no_grad():
        board = Board(model, images, labels, targets)
        for index, aims in board.batches():
            _flow(board, index, aims, steps, step, pixels, smoothness)
        return board.adversarial


def _flow(
    board: Board, index: Tensor, targets: Tensor | None, steps: int, step: float, pixels: float, smoothness: float
) -> None:
    maximised, images = objective("margin"), board.images[index]
    s = Rows(index=index, targets=targets, images=images, labels=board.labels[index], best=images)
    s.flow = images.new_zeros(len(images), images.shape[2], images.shape[3], 2)
    s.mean, s.square = torch.zeros_like(s.flow), torch.zeros_like(s.flow)  # Adam's, of the gradient
    s.highest = images.new_full((len(images),), -torch.inf)
    s.found = torch.zeros_like(index, dtype=torch.bool)
    for number in range(steps + 1):
        with torch.enable_grad():
            flow = s.flow.detach().requires_grad_()
            moved = warp(s.images, flow)
            logits = board.model(moved)
            losses = maximised(logits, s.labels, s.targets, None)
            # past the boundary only smoothness counts
            total = (losses.clamp_max(0) - smoothness * roughness(flow)).sum()
        fell = board.fell(logits, s.labels, s.targets)
        s.put(~s.found & (fell | (losses.detach() > s.highest)), best=moved.detach(), highest=losses.detach())
        s.found = s.found | fell
        if number == steps:
            break
        kept: Tensor | slice = slice(None)
        if board.due(number) and bool(s.found.any()):
            kept = board.record(s.index, s.best, s.highest, s.found)
            s.keep(kept)
            if not len(s.index):
                return
            s.found = torch.zeros_like(s.found)
        gradient = torch.autograd.grad(total, flow)[0][kept].nan_to_num(0, 0, 0)
        s.mean = s.mean.lerp(gradient, 1 - ADAM[0])
        s.square = (s.square * ADAM[1]).addcmul(gradient, gradient, value=1 - ADAM[1])
        start = [1 - keeps ** (number + 1) for keeps in ADAM]  # for means that began at zero
        size = s.square.sqrt() / math.sqrt(start[1]) + 1e-8
        s.flow = s.flow.addcdiv(s.mean, size, value=step / start[0]).clamp(-pixels, pixels)
    board.record(s.index, s.best, s.highest, s.found)


def warp(images: Tensor, flow: Tensor) -> Tensor:
    """Images (n, c, h, w) read at each pixel's place plus flow (n, h, w, 2), in pixels as (x, y); edges repeat."""
    height, width = images.shape[-2:]
    rows, columns = torch.arange(height, device=flow.device), torch.arange(width, device=flow.device)
    place = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    size = torch.tensor([width, height], device=flow.device)
    grid = (2 * (place + flow) + 1) / size - 1
    return F.grid_sample(images, grid, "bilinear", "border", align_corners=False).clamp(0, 1)


def roughness(flow: Tensor) -> Tensor:
    """Mean, over the pixels, of the distance between the flows of neighbours: (n,)."""
    down, right = flow.diff(dim=1), flow.diff(dim=2)
    return sum((d.square().sum(-1) + 1e-8).sqrt().mean((1, 2)) for d in (down, right))  # type: ignore[return-value]


def rotate_translate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat | None = None,
    *,
    degrees: float = 30.0,
    pixels: float | None = None,
    angles: int = 31,
    shifts: int = 5,
    generator: torch.Generator | None = None,
    mode: str = "eval",
) -> Tensor:
    """Every rotation and shift of a grid; the first that turns an image, else that of the highest margin.

    Args:
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64.
        degrees, angles: largest rotation to either side, and number of rotations.
        pixels, shifts: largest shift along each axis (a tenth of the width by default), and number of shifts an axis.

    Returns: (n, c, h, w) float32 in [0, 1]; what comes in from outside the image is 0.
    """
    check(images, labels, angles=angles, shifts=shifts)
    reach = images.shape[-1] / 10 if pixels is None else pixels
    turns = _around_zero(degrees, angles)
    moves = _around_zero(reach, shifts)
    with attacked(model, mode, generator), torch.no_grad():
        board = Board(model, images, labels)
        index = torch.arange(len(images), device=images.device)
        for angle, right, down in itertools.product(turns, moves, moves):
            moved = rigid(images[index], angle, right, down)
            logits = model(moved)
            index = index[board.record(index, moved, margin(logits, labels[index]), board.fell(logits, labels[index]))]
            if not len(index):
                break
        return board.adversarial


def _around_zero(reach: float, count: int) -> list[float]:
    """`count` values between -reach and reach, the smallest first."""
    values = torch.linspace(-reach, reach, count).tolist() if count > 1 else [0.0]
    return sorted(values, key=abs)


def rigid(images: Tensor, degrees: float, right: float, down: float) -> Tensor:
    """Images (n, c, h, w) rotated about their middle, then shifted by so many pixels; outside is 0."""
    height, width = images.shape[-2:]
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    # grid coordinates run from -1 to 1 along each side, so that a rotation of pixels scales with the sides' ratio
    x, y = 2 * right / width, 2 * down / height
    rows = [
        [cos, sin * height / width, -cos * x - sin * height / width * y],
        [-sin * width / height, cos, sin * width / height * x - cos * y],
    ]
    # filled on the device: a copy from the host would wait for all that is under way there
    theta = torch.stack([images.new_full((), value) for row in rows for value in row]).view(1, 2, 3)
    grid = F.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, "bilinear", "zeros", align_corners=False).clamp(0, 1)
