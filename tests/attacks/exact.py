"""Least changes by convex programs: to a class of a linear network, to any wrong class of a small ReLU network."""

import itertools
from collections.abc import Iterator

import numpy as np
from scipy.optimize import linprog, nnls
from torch import Tensor, nn

Region = tuple[np.ndarray, np.ndarray]  # rows (m, d) and limits (m,) of `rows @ change <= limits`


def least_change(region: Region, norm: str) -> float:
    """Least linf, l2 or l1 norm of a change within the region; infinite where there is none."""
    rows, limits = region
    size = rows.shape[1]
    if norm == "l2":  # least distance programming by non-negative least squares (Lawson & Hanson 1974, chapter 23)
        scale = np.linalg.norm(rows, axis=1).clip(1e-12)
        dual = np.vstack([-rows.T / scale, -limits[None] / scale])
        weights, missed = nnls(dual, np.eye(size + 1)[-1], maxiter=1000)
        rest = dual @ weights - np.eye(size + 1)[-1]
        return float(np.linalg.norm(rest[:-1] / rest[-1])) if missed > 1e-9 else np.inf
    bounds = 1 if norm == "linf" else size
    spread = np.ones((size, 1)) if norm == "linf" else np.eye(size)
    near = np.vstack([np.hstack([sign * np.eye(size), -spread]) for sign in (1, -1)])
    every = np.vstack([np.hstack([rows, np.zeros((len(rows), bounds))]), near])
    cost = np.repeat([0.0, 1.0], [size, bounds])
    found = linprog(cost, every, np.append(limits, np.zeros(2 * size)), bounds=[(None, None)] * (size + bounds))
    return float(found.fun) if found.success else np.inf


def box(image: Tensor) -> Region:
    """Changes that stay in [0, 1]."""
    x = image.flatten().double().numpy()
    return np.vstack([np.eye(len(x)), -np.eye(len(x))]), np.concatenate([1 - x, x])


def least_to_class(model: nn.Module, image: Tensor, target: int, norm: str) -> float:
    """Least norm of a change after which a `linear` network answers `target`."""
    weights, bias = (p.detach().double().numpy() for p in (model[1].weight, model[1].bias))
    ahead = (weights - weights[target]) @ image.flatten().double().numpy() + bias - bias[target]
    rows, limits = box(image)
    return least_change((np.vstack([rows, weights - weights[target]]), np.append(limits, -ahead)), norm)


def least_wrong(model: nn.Module, image: Tensor, label: int, norm: str) -> float:
    """Least norm of a change after which a `relu` network does not answer `label`: over all its linear pieces."""
    return min(least_change(region, norm) for region in _pieces(model, image, label))


def _pieces(model: nn.Module, image: Tensor, label: int) -> Iterator[Region]:
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in model.parameters())
    x = image.flatten().double().numpy()
    rows, limits = box(image)
    for pattern in itertools.product((0.0, 1.0), repeat=len(b1)):
        on = np.array(pattern)
        sign = 1 - 2 * on  # w1 z + b1 >= 0 where on, <= 0 where off
        whole, heights = w2 @ (on[:, None] * w1), w2 @ (on * (w1 @ x + b1)) + b2
        for target in set(range(len(b2))) - {label}:
            beaten = whole[label] - whole[target]
            yield (
                np.vstack([rows, sign[:, None] * w1, beaten]),
                np.concatenate([limits, -sign * (w1 @ x + b1), [heights[target] - heights[label]]]),
            )
