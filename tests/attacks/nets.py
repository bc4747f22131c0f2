"""Tiny networks whose worst case is known: in closed form (linear) or by trying every activation pattern (ReLU)."""

import itertools

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

torch.set_num_threads(1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(pixels: int = 16, classes: int = 4, seed: int = 0) -> nn.Module:
    """(n, 1, h, w) to (n, classes), affine, with heights that make both robust and fragile images."""
    layer = nn.Linear(pixels, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, pixels, generator=seeded(seed)))
        layer.bias.copy_(-layer.weight.sum(1) / 2)
    return nn.Sequential(nn.Flatten(), layer)


def relu(pixels: int = 4, hidden: int = 6, classes: int = 3, seed: int = 0) -> nn.Module:
    """A ReLU network small enough for all its 2 ** hidden linear pieces to be visited."""
    generator = seeded(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, classes))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        net[1].weight.mul_(2)
        net[1].bias.copy_(-net[1].weight.sum(1) / 2 + net[1].bias / 4)
    return net


def busy(channels: int = 1, classes: int = 4) -> nn.Module:
    """A convolutional network with all that has a mode or a state: batch norm and dropout, left in train mode."""
    generator = seeded(3)
    net = nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        net[1].running_mean.copy_(torch.randn(4, generator=generator) / 4)
    net[0].bias.requires_grad_(False)
    return net.train()


def pictures(count: int = 6, side: int = 4, channels: int = 1, seed: int = 1) -> Tensor:
    return torch.rand(count, channels, side, side, generator=seeded(seed))


@torch.no_grad()
def predicted(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).argmax(1)


def linear_worst_margin(model: nn.Module, images: Tensor, labels: Tensor, norm: str, epsilon: float) -> Tensor:
    """Highest margin over ball and box of a `linear` network, in closed form (l2: only where the box does not bind)."""
    layer = model[1]
    weights, flat = layer.weight.detach(), images.flatten(1)
    margins = []
    for target in range(len(weights)):
        normal = weights[target] - weights[labels]
        height = (normal * flat).sum(1) + layer.bias.detach()[target] - layer.bias.detach()[labels]
        room = torch.where(normal > 0, 1 - flat, flat)
        if norm == "linf":
            gain = (normal.abs() * room.clamp_max(epsilon)).sum(1)
        elif norm == "l2":
            gain = normal.norm(dim=1) * epsilon
        else:
            strength, order = normal.abs().sort(dim=1, descending=True)
            room = room.gather(1, order)
            spent = room.cumsum(1)
            gain = (strength * (epsilon - (spent - room)).clamp_min(0).minimum(room)).sum(1)
        margins.append(torch.where(labels == target, -torch.inf, height + gain))
    return torch.stack(margins).amax(0)


def relu_exhaustive(model: nn.Module, image: Tensor, label: int, norm: str) -> float:
    """Exact least norm (linf or l1) of an adversarial change of one image: a linear program on every linear piece."""
    first, last = model[1], model[3]
    w1, b1 = first.weight.detach().double().numpy(), first.bias.detach().double().numpy()
    w2, b2 = last.weight.detach().double().numpy(), last.bias.detach().double().numpy()
    x = image.flatten().double().numpy()
    size, eye = len(x), np.eye(len(x))
    # variables: the new image z, and its distance: one bound t (linf), or one bound a pixel (l1)
    bounds = 1 if norm == "linf" else size
    spread = np.ones((size, 1)) if norm == "linf" else eye
    near = np.vstack([np.hstack([eye, -spread]), np.hstack([-eye, -spread])])
    near_limit = np.concatenate([x, -x])
    cost = np.concatenate([np.zeros(size), np.ones(bounds)])
    best = np.inf
    for pattern in itertools.product((0.0, 1.0), repeat=len(b1)):
        on = np.array(pattern)
        sign = 1 - 2 * on  # w1 z + b1 >= 0 where on, <= 0 where off
        piece, piece_limit = sign[:, None] * w1, -sign * b1
        whole, offset = w2 @ (on[:, None] * w1), w2 @ (on * b1) + b2
        for target in range(len(b2)):
            if target == label:
                continue
            rows = np.vstack([piece, whole[label] - whole[target]])
            limits = np.append(piece_limit, offset[target] - offset[label])
            constraints = np.vstack([np.hstack([rows, np.zeros((len(rows), bounds))]), near])
            result = linprog(cost, constraints, np.concatenate([limits, near_limit]), bounds=[(0, 1)] * (size + bounds))
            if result.success:
                best = min(best, result.fun)
    return best
