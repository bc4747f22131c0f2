"""Training batches without workers: the whole split lives on the device and is augmented there, a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from numpy import asarray
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from turncoat.randomness import generator


@dataclass(frozen=True)
class DeviceSplit:
    """Images (n, c, h, w) uint8 and labels (n,) int64, on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def floats(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Images `start:stop` as float32 in [0, 1]."""
        return as_float(self.images[start:stop])


@dataclass(frozen=True)
class Batch:
    """What a method's loss sees.

    `images` (n, c, h, w) float32 in [0, 1], `labels` (n,) int64, `index` (n,) places in the training split,
    `generator`: the counted generator of this step, on the images' device; `epoch`: how many epochs are done.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    generator: torch.Generator
    epoch: int = 0


def resident(images: NDArray[Any], labels: NDArray[Any], device: torch.device | str) -> DeviceSplit:
    """Copy a stored split to the device."""
    return DeviceSplit(
        torch.tensor(asarray(images), device=device), torch.tensor(asarray(labels), device=device).long()
    )


def as_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def augment(images: Tensor, crop: int, flip: bool, source: torch.Generator) -> Tensor:
    """Random crops after `crop` pixels of zero padding and random mirror images, each example drawn on its own."""
    count, _, height, width = images.shape
    device = images.device
    if crop:
        padded = functional.pad(images, (crop, crop, crop, crop))
        offsets = torch.randint(0, 2 * crop + 1, (2, count, 1), generator=source, device=device)
        rows = offsets[0] + torch.arange(height, device=device)
        columns = offsets[1] + torch.arange(width, device=device)
        example = torch.arange(count, device=device)[:, None, None]
        # advanced indices around a slice put the channels last
        images = padded[example, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if flip:
        mirrored = torch.rand(count, 1, 1, 1, generator=source, device=device) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
    return images


def batches(
    split: DeviceSplit, size: int, crop: int, flip: bool, seed: int, epoch: int, steps: int | None = None
) -> Iterator[Batch]:
    """One epoch in an order that depends on (seed, epoch) alone; all batches have `size` images (the rest sits out).

    Where the split is smaller than `size`, it is one batch; `steps` ends an epoch early.
    """
    device = split.images.device
    order = torch.randperm(len(split), generator=generator(seed, "order", epoch)).to(device)
    size = min(size, len(split))
    for step in range(batches_an_epoch(split, size, steps)):
        index = order[step * size : (step + 1) * size]
        source = generator(seed, "batch", epoch, step, device=device)
        images = as_float(augment(split.images[index], crop, flip, source))
        yield Batch(images.contiguous(), split.labels[index], index, source, epoch)


def batches_an_epoch(split: DeviceSplit, size: int, steps: int | None = None) -> int:
    """How many batches `batches` makes, at least one."""
    whole = len(split) // min(size, len(split))
    return whole if steps is None else min(steps, whole)
