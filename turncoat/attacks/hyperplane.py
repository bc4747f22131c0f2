"""The smallest change that brings a point in the box [0, 1] onto a hyperplane: the step of DeepFool and FAB.

In closed form for linf, l2 and l1: every coordinate moves along the normal as far as one multiplier, common to all,
allows or until it meets the box (Croce & Hein 2020, arXiv 1907.02044, section 2.2). Sorting where coordinates meet the
box gives the multiplier in one sweep.
"""

import torch
from torch import Tensor


def to_hyperplane(points: Tensor, normals: Tensor, values: Tensor, norm: str) -> Tensor:
    """The change d of least `norm` with values + <normals, d> = 0 and points + d in [0, 1].

    Args:
        points, normals: (n, ...) each; the points lie in [0, 1]. NaN normals count as zero.
        values: (n,) signed height of each point over its hyperplane.

    Returns: (n, ...). Where the box does not reach the hyperplane, the change that comes nearest to it.
    """
    point, towards = points.flatten(1), (normals * -_column(values.sign(), normals)).nan_to_num(0, 0, 0).flatten(1)
    scale = towards.abs().amax(1, keepdim=True).clamp_min(1e-30)
    towards, goal = towards / scale, (values.abs() / scale[:, 0]).nan_to_num(0, 0, 0).double()[:, None]
    weight, room = towards.abs(), torch.where(towards > 0, 1 - point, point).clamp_min(0)
    change = towards.sign() * (_fill(weight, room, goal) if norm == "l1" else _advance(weight, room, goal, norm))
    return change.view_as(points)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def _fill(weight: Tensor, room: Tensor, goal: Tensor) -> Tensor:
    """l1: the coordinates of largest weight go first, each as far as the box allows."""
    order = weight.argsort(dim=1, descending=True)
    weights, rooms = weight.gather(1, order), room.gather(1, order)
    gain = (weights * rooms).double()
    missing = (goal - (gain.cumsum(1) - gain)).clamp_min(0)
    moves = torch.minimum((missing / weights.clamp_min(1e-30)).float(), rooms) * (weights > 0)
    return torch.zeros_like(moves).scatter_(1, order, moves)


def _advance(weight: Tensor, room: Tensor, goal: Tensor, norm: str) -> Tensor:
    """linf, l2: coordinate i has moved min(multiplier * rate_i, room_i); find the multiplier that reaches the goal."""
    rate = torch.ones_like(weight) if norm == "linf" else weight.clamp_min(1e-12)
    corners, order = (room / rate).sort(dim=1)
    stopped = (weight * room).gather(1, order).cumsum(1, dtype=torch.float64)  # gained by those already at the box
    speed = (weight * rate).gather(1, order).double()
    speed = speed.sum(1, keepdim=True) - speed.cumsum(1)  # of those still moving after each corner
    reached = stopped + corners * speed.clamp_min(0)
    behind = (reached < goal).sum(1, keepdim=True)  # corners passed on the way
    before = (behind - 1).clamp_min(0)
    at = torch.where(behind > 0, stopped.gather(1, before), 0.0)
    pace = torch.where(behind > 0, speed.gather(1, before), (weight * rate).sum(1, keepdim=True).double())
    multiplier = ((goal - at) / pace.clamp_min(1e-30)).float()
    beyond = behind == weight.shape[1]
    multiplier = torch.where(beyond, corners[:, -1:], multiplier)
    return torch.minimum(multiplier * rate, room)
