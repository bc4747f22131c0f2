"""Training batches without workers: the whole split lives on the device and is augmented there, a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from numpy import asarray
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from turncoat.data.moves import Moves, moved
from turncoat.data.targets import Task
from turncoat.randomness import generator


@dataclass(frozen=True)
class DeviceSplit:
    """Images (n, c, h, w) uint8 and labels (n,) int64, on one device; of other tasks see targets.py."""

    images: Tensor
    labels: Tensor
    task: Task = "classification"

    def __len__(self) -> int:
        return len(self.labels)

    def floats(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Images `start:stop` as float32 in [0, 1]."""
        return as_float(self.images[start:stop])


@dataclass(frozen=True)
class Batch:
    """What a method's loss sees.

    `images` (n, c, h, w) float32 in [0, 1], `labels` (n,) int64 or the targets of another task, `index` (n,) places in
    the training split, `generator`: the counted generator of this step, on the images' device; `epoch`: how many
    epochs are done.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    generator: torch.Generator
    epoch: int = 0


def resident(
    images: NDArray[Any], labels: NDArray[Any], device: torch.device | str, task: Task = "classification"
) -> DeviceSplit:
    """Copy a stored split to the device."""
    targets = torch.tensor(asarray(labels), device=device)
    return DeviceSplit(
        torch.tensor(asarray(images), device=device), targets.long() if task == "classification" else targets, task
    )


def as_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def augment(images: Tensor, crop: int, flip: bool, source: torch.Generator) -> Tensor:
    """Random crops after `crop` pixels of zero padding and random mirror images, each example drawn on its own."""
    return moved_images(images, drawn_moves(len(images), crop, flip, source), crop)


def drawn_moves(count: int, crop: int, flip: bool, source: torch.Generator) -> Moves:
    """Where the crops of so many images begin, and which of them are mirrored."""
    device = source.device
    offsets = torch.randint(0, 2 * crop + 1, (2, count, 1), generator=source, device=device) if crop else None
    return Moves(offsets, torch.rand(count, 1, 1, 1, generator=source, device=device) < 0.5 if flip else None)


def moved_images(images: Tensor, moves: Moves, crop: int) -> Tensor:
    """The images (n, c, h, w) as they were drawn to be moved."""
    count, _, height, width = images.shape
    device = images.device
    if moves.offsets is not None:
        padded = functional.pad(images, (crop, crop, crop, crop))
        rows = moves.offsets[0] + torch.arange(height, device=device)
        columns = moves.offsets[1] + torch.arange(width, device=device)
        example = torch.arange(count, device=device)[:, None, None]
        # advanced indices around a slice put the channels last
        images = padded[example, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return images if moves.mirrored is None else torch.where(moves.mirrored, images.flip(3), images)


def batches(
    split: DeviceSplit, size: int, crop: int, flip: bool, seed: int, epoch: int, steps: int | None = None
) -> Iterator[Batch]:
    """One epoch in an order that depends on (seed, epoch) alone; all batches have `size` images (the rest sits out).

    Where the split is smaller than `size`, it is one batch; `steps` ends an epoch early.
    """
    device, sides = split.images.device, (split.images.shape[2], split.images.shape[3])
    order = torch.randperm(len(split), generator=generator(seed, "order", epoch)).to(device)
    size = min(size, len(split))
    for step in range(batches_an_epoch(split, size, steps)):
        index = order[step * size : (step + 1) * size]
        source = generator(seed, "batch", epoch, step, device=device)
        moves = drawn_moves(len(index), crop, flip, source)
        images = as_float(moved_images(split.images[index], moves, crop))
        targets = moved(split.task, split.labels[index], moves, crop, sides)
        yield Batch(images.contiguous(), targets, index, source, epoch)


def batches_an_epoch(split: DeviceSplit, size: int, steps: int | None = None) -> int:
    """How many batches `batches` makes, at least one."""
    whole = len(split) // min(size, len(split))
    return whole if steps is None else min(steps, whole)
