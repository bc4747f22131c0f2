"""The loss of FCOS for each image by itself, for all of a batch at once.

Tian et al. 2019, arXiv 1904.01355; matching and terms are torchvision's, whose loss of a batch of one image it is.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

HUGE = 1e8  # torchvision's: a matched box counts HUGE less its area, so that the smallest is chosen
SCALES = 4, 8  # an anchor answers for boxes that reach so many times its size, at least and at most


def fcos_losses(
    head: Mapping[str, Tensor], anchors: Tensor, levels: Sequence[int], targets: Tensor, radius: float
) -> Tensor:
    """Focal loss, generalised IoU and centre loss, each over the number of matched anchors: (n,).

    Args:
        head: `cls_logits` (n, a, classes), `bbox_regression` (n, a, 4), `bbox_ctrness` (n, a, 1).
        anchors: (a, 4). levels: how many of them each level has. targets: (n, m, 5).
        radius: of the centre of a box, in anchor sizes, within which anchors match it.
    """
    which = matched(anchors, levels, targets, radius)
    right = which >= 0  # (n, a)
    chosen = targets.gather(1, which.clamp_min(0)[..., None].expand(-1, -1, 5))
    classes = torch.zeros_like(head["cls_logits"])
    classes.scatter_(2, chosen[..., :1].long().clamp_min(0), right[..., None].to(classes.dtype))
    focal = sigmoid_focal_loss(head["cls_logits"], classes, reduction="none").sum((1, 2))

    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    reach = head["bbox_regression"] * torch.cat([size, size], 1)
    boxes = torch.cat([centre - reach[..., :2], centre + reach[..., 2:]], 2)
    overlap = generalized_box_iou_loss(boxes, chosen[..., 1:], reduction="none")

    left, top = (centre - chosen[..., 1:3]).unbind(2)
    beyond, below = (chosen[..., 3:] - centre).unbind(2)
    across, along = (torch.minimum(a, b) / torch.maximum(a, b) for a, b in ((left, beyond), (top, below)))
    middle = torch.where(right, across * along, 1.0).sqrt()
    away = functional.binary_cross_entropy_with_logits(head["bbox_ctrness"][..., 0], middle, reduction="none")
    of_boxes = torch.where(right, overlap + away, 0.0).sum(1)
    each: Tensor = (focal + of_boxes) / right.sum(1).clamp_min(1)
    return each


@torch.no_grad()
def matched(anchors: Tensor, levels: Sequence[int], targets: Tensor, radius: float) -> Tensor:
    """Which target each anchor answers for, (n, a) int64; -1: none."""
    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2] - anchors[:, 0]
    boxes = targets[:, None, :, 1:]  # (n, 1, m, 4)
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2
    near = (centre[:, None] - middles).abs().amax(3) < radius * size[:, None]
    reach = torch.cat([centre[:, None] - boxes[..., :2], boxes[..., 2:] - centre[:, None]], 3)  # (n, a, m, 4)
    least, most = SCALES[0] * size, SCALES[1] * size
    least[: levels[0]] = 0
    most[len(most) - levels[-1] :] = torch.inf
    far = reach.amax(3)
    fits = near & (reach.amin(3) > 0) & (far > least[:, None]) & (far < most[:, None]) & (targets[:, None, :, 0] >= 0)
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    value, which = (fits.float() * (HUGE - area)).max(2)
    return torch.where(value < 1e-5, -1, which)
