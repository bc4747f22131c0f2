"""A linear classifier, for which the strongest attack is known in closed form: what the suite must find, it must find.

The gain of class j over the label y is linear in the image. Within a norm ball and the box [0, 1] its maximum is: for
linf the sum over the pixels, each moved as far as it may; for l1 the pixels of the largest weights moved first, each as
far as the box allows, until epsilon is used up; for l2 a move in proportion to the weights, cut at the box, with the
factor at which its length is epsilon.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from turncoat.attacks import Threat

BISECTIONS = 60
AT_ONCE = 1 << 21  # moves (images x classes x pixels) that are looked at together: 16 MB in float64
SLACK = 1e-4  # of the largest gain: float32 logits cannot tell a smaller one from none


class NearestMean(nn.Module):
    """Classifies an image as the class whose mean image is nearest: linear, made of the images themselves.

    Args:
        images, labels: (n, c, h, w) float32; (n,) int64. Classes without an image are never predicted.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        flat, classes = images.flatten(1), int(labels.max()) + 1
        members = functional.one_hot(labels, classes).to(flat.dtype)
        means = members.t() @ flat / members.sum(0).clamp_min(1)[:, None]
        bias = -means.square().sum(1) / 2
        self.register_buffer("weights", means)
        self.register_buffer("bias", torch.where(members.sum(0) > 0, bias, bias.new_tensor(-1e4)))

    weights: Tensor
    bias: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes): half the distance to the origin short of minus half the squared distances."""
        return images.flatten(1) @ self.weights.t() + self.bias


def can_fall(model: NearestMean, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
    """(n,) bool: whether some image within the threat is classified otherwise; exact but for ties.

    The memory is that of a few times `AT_ONCE` float64 values, whatever the images' size and the number of classes.
    """
    weights, bias = model.weights.double(), model.bias.double()
    few = max(1, AT_ONCE // weights.shape[1])  # classes
    found = []
    for x, label in zip(images.flatten(1).double(), labels.tolist(), strict=True):
        gains, heights = [], []
        for start in range(0, len(weights), few):
            directions = weights[start : start + few] - weights[label]  # (classes, pixels)
            room = torch.where(directions > 0, 1 - x, x)
            gains.append(_largest_gain(directions.abs(), room, threat))
            heights.append((directions * x).sum(1) + bias[start : start + few] - bias[label])
        gain, now = torch.cat(gains), torch.cat(heights)
        reached = now + gain
        reached[label] = -torch.inf
        found.append(reached.amax() > SLACK * gain.amax())
    return torch.stack(found)


def _largest_gain(slopes: Tensor, room: Tensor, threat: Threat) -> Tensor:
    """Maximum over (classes, pixels) of `slopes` * move; moves of at most `room` each, at most epsilon in the norm."""
    epsilon = threat.epsilon
    if threat.norm == "linf":
        return (slopes * room.clamp_max(epsilon)).sum(1)
    if threat.norm == "l1":
        steepest, order = slopes.sort(dim=1, descending=True)
        rooms = room.gather(1, order)
        left = (epsilon - (rooms.cumsum(1) - rooms)).clamp_min(0)
        return (steepest * torch.minimum(rooms, left)).sum(1)
    low = torch.zeros_like(slopes[..., :1])
    high = (room / slopes.clamp_min(1e-12)).amax(1, keepdim=True)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        inside = torch.minimum(middle * slopes, room).square().sum(1, keepdim=True) <= epsilon**2
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return (slopes * torch.minimum(low * slopes, room)).sum(1)
