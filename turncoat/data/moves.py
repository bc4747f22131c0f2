"""Masks and boxes go along where augmentation moves their images."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from turncoat.data.targets import NO_BOX, VOID, Task

VISIBLE = 0.3  # share of a box that a crop must leave for the box to stay


class Moves(NamedTuple):
    """How each image of a batch is moved, drawn on its own; None: not at all.

    `offsets`: (2, n, 1) int64, the first row and column of the crop in the padded image. `mirrored`: (n, 1, 1, 1) bool.
    """

    offsets: Tensor | None
    mirrored: Tensor | None


def moved(task: Task, targets: Tensor, moves: Moves, crop: int, size: tuple[int, int]) -> Tensor:
    """The targets of images that were moved: of a class nothing changes; masks and boxes go along.

    Args: size: height and width of an image. crop: pixels that it was padded by.
    """
    if task == "segmentation":
        return _moved_masks(targets, moves, crop)
    return _moved_boxes(targets, moves, crop, size) if task == "detection" else targets


def _moved_masks(masks: Tensor, moves: Moves, crop: int) -> Tensor:
    """What lies outside the image is void."""
    if moves.offsets is not None:
        count, height, width = masks.shape
        padded = functional.pad(masks, (crop, crop, crop, crop), value=VOID)
        rows = moves.offsets[0] + torch.arange(height, device=masks.device)
        columns = moves.offsets[1] + torch.arange(width, device=masks.device)
        masks = padded[torch.arange(count, device=masks.device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return masks if moves.mirrored is None else torch.where(moves.mirrored[:, 0], masks.flip(2), masks)


def _moved_boxes(boxes: Tensor, moves: Moves, crop: int, size: tuple[int, int]) -> Tensor:
    """Boxes are cut off at the edges; one of which less than `VISIBLE` is left goes, for so does what it shows."""
    height, width = size
    kinds, corners = boxes[..., :1], boxes[..., 1:]
    if moves.offsets is not None:
        before = area(corners)
        shift = crop - moves.offsets.flip(0).permute(1, 2, 0).to(corners.dtype)  # (n, 1, 2): across, down
        corners = corners + shift.repeat(1, 1, 2)
        corners = corners.clamp_min(0).minimum(corners.new_tensor([width, height, width, height]))
        kinds = torch.where((area(corners) < VISIBLE * before)[..., None], NO_BOX, kinds)
    if moves.mirrored is not None:
        turned = torch.stack([width - corners[..., 2], corners[..., 1], width - corners[..., 0], corners[..., 3]], -1)
        corners = torch.where(moves.mirrored[:, 0], turned, corners)
    return torch.where(kinds < 0, NO_BOX, torch.cat([kinds, corners], 2))


def area(corners: Tensor) -> Tensor:
    """Of boxes (..., 4), in pixels."""
    return (corners[..., 2] - corners[..., 0]).clamp_min(0) * (corners[..., 3] - corners[..., 1]).clamp_min(0)
