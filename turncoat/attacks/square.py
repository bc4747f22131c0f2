"""Square: random search over square windows, from scores alone (Andriushchenko et al. 2020, arXiv 1912.00049).

linf repaints a window with +-epsilon (algorithm 2); l2 and l1 move the norm of one window to another (algorithm 3, and
its l1 form in Croce & Hein 2021, arXiv 2103.01208). Windows are drawn for each image, not for the whole batch.
"""

import math

import torch
from torch import Tensor, nn

from .board import Board, Progress, Rows
from .engine import attacked, check
from .losses import Loss, Objective, objective
from .threat import Threat, per_example

SCALE = 10_000  # queries of the paper
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of the share, after so many of these queries


def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    queries: int = 5000,
    share: float = 0.8,
    rescale: bool = True,
    restarts: int = 1,
    loss: str | Loss = "margin",
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    mode: str = "eval",
    progress: Progress | None = None,
) -> Tensor:
    """Random search that keeps a repainted window when the loss rises; examples leave when they fall.

    Args:
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64.
        queries: forward passes an image and restart, at most; there are no backward passes.
        share: of the image that the first windows cover, in (0, 1]; it is halved nine times on the way.
        rescale: whether the halvings are spread over `queries`, however many. False: they come where they do in 10,000
            queries, so that fewer end with wider windows (5,000 after seven halvings), as in the authors' AutoAttack.
        loss: as for `pgd`; it must not need gradients.

    Returns: (n, c, h, w) float32: an image that fell, else the one of highest loss.
    """
    check(images, labels, targets=targets, queries=queries, restarts=restarts)
    if images.dim() != 4:
        raise ValueError(f"images: (n, c, h, w) wanted, got {tuple(images.shape)}; square needs rows and columns")
    if not 0 < share <= 1:
        raise ValueError(f"share: {share!r} is not allowed; give 0 < share <= 1")
    if generator is None:
        raise ValueError("generator: square draws random windows; pass a torch.Generator, which then determines them")
    with attacked(model, mode, generator), torch.no_grad():
        board = Board(model, images, labels, targets, progress)
        draw, scale = Draw(generator, images), queries if rescale else SCALE
        for _ in range(restarts):
            for index, aims in board.batches(batch_size=batch_size):
                _run(board, index, aims, threat, objective(loss), queries, share, scale, draw)
        return board.adversarial


class Draw:
    """Random numbers on the images' device, determined by a generator that may live elsewhere."""

    def __init__(self, generator: torch.Generator, images: Tensor) -> None:
        self.device, self.shape = images.device, images.shape[1:]
        self.rows, self.columns = (torch.arange(size, device=images.device) for size in images.shape[2:])
        self.generator = generator
        if generator.device.type != images.device.type:
            seed = torch.randint(2**62, (), generator=generator, device=generator.device)
            self.generator = torch.Generator(images.device).manual_seed(int(seed))

    def corners(self, count: int, side: int) -> Tensor:
        """(count, 2): row and column of the upper left corner of windows that lie inside the image."""
        ends = (size - side + 1 for size in self.shape[1:])
        return torch.cat(
            [torch.randint(end, (count, 1), generator=self.generator, device=self.device) for end in ends], 1
        )

    def signs(self, *shape: int) -> Tensor:
        """+1 and -1, equally likely."""
        return torch.randint(0, 2, shape, generator=self.generator, device=self.device).float() * 2 - 1


def _run(
    board: Board,
    index: Tensor,
    targets: Tensor | None,
    threat: Threat,
    maximised: Objective,
    queries: int,
    share: float,
    scale: int,
    draw: Draw,
) -> None:
    images = board.images[index]
    s = Rows(index=index, targets=targets, images=images, labels=board.labels[index], best=images)
    if threat.norm == "linf":  # the two colours a window is painted in
        s.lower, s.upper = (threat.project(images + way * threat.epsilon, images) for way in (-1, 1))
    s.highest = images.new_full((len(index),), -torch.inf)
    s.found = torch.zeros_like(index, dtype=torch.bool)
    for query in range(queries):
        side = window_side(share, query, scale, images.shape)
        if threat.norm == "linf":
            candidate = _stripes(s, draw) if query == 0 else _repaint(s, draw, side)
        else:
            candidate = _bumps(s, threat, draw) if query == 0 else _move(s, threat, draw, side)
        logits = board.model(candidate)
        losses = maximised(logits, s.labels, s.targets, s.index)
        fell = board.fell(logits, s.labels, s.targets)
        s.put(~s.found & (fell | (losses > s.highest)), best=candidate, highest=losses)
        s.found |= fell
        if board.due(query + 1) and bool(s.found.any()):
            s.keep(board.record(s.index, s.best, s.highest, s.found))
            if not len(s.index):
                return
            s.found = torch.zeros_like(s.found)
    board.record(s.index, s.best, s.highest, s.found)


def window_side(share: float, query: int, scale: int, shape: torch.Size) -> int:
    """Side of the windows in this query, of `scale` for all halvings: 1 to one less than the image's smaller side."""
    halvings = sum(query * SCALE > at * scale for at in HALVINGS)
    side = round(math.sqrt(share / 2**halvings * shape[-1] * shape[-2]))
    return max(1, min(side, min(shape[-2:]) - 1))


def _stripes(s: Rows, draw: Draw) -> Tensor:
    n, c, _, w = s.images.shape
    return torch.where(draw.signs(n, c, 1, w) > 0, s.upper, s.lower)


def _repaint(s: Rows, draw: Draw, side: int) -> Tensor:
    n, c, _, _ = s.images.shape
    corner = draw.corners(n, side)
    down, right = draw.rows - corner[:, :1], draw.columns - corner[:, 1:]
    window = ((down >= 0) & (down < side))[:, None, :, None] & ((right >= 0) & (right < side))[:, None, None, :]
    return torch.where(window, torch.where(draw.signs(n, c, 1, 1) > 0, s.upper, s.lower), s.best)


def _bumps(s: Rows, threat: Threat, draw: Draw) -> Tensor:
    """The start for l2 and l1: five by five bumps of random sign, the ball's radius shared among them."""
    n, c, h, w = s.images.shape
    side = max(1, min(h, w) // 5)
    down, across = h // side, w // side
    tiles = bump(side, s.images.device).repeat(down, across)
    signs = draw.signs(n, c, down, across).repeat_interleave(side, 2).repeat_interleave(side, 3)
    change = torch.zeros_like(s.images)
    change[..., : down * side, : across * side] = tiles * signs
    length = threat.distance(change, torch.zeros_like(change))
    images: Tensor = s.images
    return threat.project(images + change * per_example(threat.epsilon / length, change), images)


def _move(s: Rows, threat: Threat, draw: Draw, side: int) -> Tensor:
    """Empty one window, and give its norm with what is left of the ball to a bump in another."""
    n, c, _, w = s.images.shape
    order = 2 if threat.norm == "l2" else 1
    cells: Tensor = torch.arange(side, device=s.images.device)
    cells = (cells[:, None] * w + cells).flatten()

    def window() -> Tensor:
        corner = draw.corners(n, side)
        places: Tensor = corner[:, :1] * w + corner[:, 1:] + cells
        return places[:, None].expand(n, c, -1)

    grows, shrinks = window(), window()
    change = (s.best - s.images).flatten(2)
    kept = change.scatter(2, grows, 0.0).scatter(2, shrinks, 0.0)
    used = change.abs().pow(order).sum((1, 2))
    unused = (threat.epsilon**order - used).clamp_min(0)[:, None, None] / c
    budget = (change.abs().pow(order).sum(2, keepdim=True) - kept.abs().pow(order).sum(2, keepdim=True)).clamp_min(0)
    budget = (budget + unused).pow(1 / order)
    shape = bump(side, change.device)
    turned = draw.signs(n, 1, 1) > 0
    shape = torch.where(turned, shape.flatten(), shape.t().flatten())
    old = change.gather(2, grows)
    new = draw.signs(n, c, 1) * shape / _length(shape, order) + old / _length(old, order)
    kept = kept.scatter(2, grows, new / _length(new, order) * budget)
    images: Tensor = s.images
    return threat.project(images + kept.view_as(images), images)


def _length(values: Tensor, order: int) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(values, order, dim=-1, keepdim=True)
    return length.clamp_min(1e-12)


def bump(side: int, device: torch.device) -> Tensor:
    """(side, side): two halves of opposite sign, each highest in its middle (arXiv 1912.00049, eq. 2)."""
    if side == 1:
        return torch.ones(1, 1, device=device)
    half = side // 2
    return torch.cat([_hill(side, half, device), -_hill(side, side - half, device)], 1)


def _hill(height: int, width: int, device: torch.device) -> Tensor:
    n = height // 2
    levels = torch.tensor([1 / (n + 1 - k) ** 2 for k in range(n + 1)], device=device).cumsum(0)
    down = (torch.arange(height, device=device) - n).abs()[:, None]
    across = (torch.arange(width, device=device) - width // 2).abs()[None]
    hill: Tensor = levels[(n - torch.maximum(down, across)).clamp_min(0)]
    return hill
