"""The state of an attack that examples leave when they fall: what is known of every image, and the rows still at work.

An attack works on items: an image, and perhaps a class to reach, so that an image may be attacked in several ways side
by side. Items are handed out in full batches, those of fallen images never. The best result of each image is kept here.
"""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .engine import fallen
from .threat import per_example

Progress = Callable[[int, int], None]  # (items still to be attacked, images standing)


class Rows(SimpleNamespace):
    """Named tensors with one row an item."""

    def keep(self, mask: Tensor) -> None:
        """Drop from all of them the rows not in `mask`."""
        for name, value in vars(self).items():
            if value is not None:
                setattr(self, name, value[mask])

    def put(self, mask: Tensor, **values: Any) -> None:
        """Overwrite the named tensors in the rows of `mask`, without a look at how many those are."""
        for name, value in values.items():
            old = getattr(self, name)
            setattr(self, name, torch.where(per_example(mask, old), value, old))


def shown(s: Rows) -> Tensor:
    """What each item of a run has to show so far: `hit`, where it fell, else `best`, its iterate of highest loss."""
    return torch.where(per_example(s.found, s.best), s.hit, s.best)


class Board:
    """The best adversarial image found for each image so far, and which images have fallen."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.images, self.labels, self.targets, self.progress = model, images, labels, targets, progress
        self.adversarial = images.clone()
        self.highest = images.new_full((len(images),), -torch.inf)
        self.down = torch.zeros_like(labels, dtype=torch.bool)

    def batches(
        self, choices: Tensor | None = None, batch_size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Batches of items for the images still standing: (m,) image indices and (m,) classes to reach.

        Args:
            choices: (n, c) classes to reach for each image, one after the other; None for one item an image.
            batch_size: items a batch; by default as many as there are images.
        """
        size = batch_size or len(self.images)
        index = torch.arange(len(self.images), device=self.images.device).repeat(
            1 if choices is None else choices.shape[1]
        )
        classes = self.targets if choices is None else choices.t().reshape(-1)
        while True:
            left = ~self.down[index]
            index, classes = index[left], None if classes is None else classes[left]
            if self.progress:
                self.progress(len(index), int((~self.down).sum()))
            if not len(index):
                return
            yield index[:size], None if classes is None else classes[:size]
            index, classes = index[size:], None if classes is None else classes[size:]

    def fell(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """(m,) bool: who has fallen in the pass that gave `logits`; where it averaged draws, in each of the draws."""
        each = getattr(self.model, "each", None)
        if each is None:
            return fallen(logits, labels, targets)
        return torch.stack([fallen(drawn, labels, targets) for drawn in each]).all(0)

    def due(self, step: int) -> bool:
        """Whether to look, after this step, who has fallen: always on a CPU, seldom where looking stalls the device."""
        return self.images.device.type == "cpu" or step in (1, 2, 4) or step % 8 == 0

    def record(self, index: Tensor, candidates: Tensor, losses: Tensor, fell: Tensor) -> Tensor:
        """Keep the candidates that beat what their image has: fallen beats standing, then the loss decides.

        Under autocast nobody falls on reduced precision alone: a forward pass in float32 decides.
        Returns: (m,) bool, the items whose image still stands.
        """
        if torch.is_autocast_enabled(self.images.device.type):
            fell = self._confirmed(index, candidates, fell)
        losses = torch.where(losses.isnan(), -torch.inf, losses.float())
        key = torch.where(fell, torch.inf, losses)
        highest = self.highest.scatter_reduce(0, index, key, "amax")
        winners = ((key > self.highest[index]) & (key == highest[index])).nonzero()[:, 0]
        order = torch.full_like(self.labels, len(index)).scatter_reduce(0, index[winners], winners, "amin")
        winners = winners[order[index[winners]] == winners]  # one writer an image
        self.adversarial[index[winners]] = candidates[winners]
        self.highest = highest
        self.down[index[fell]] = True
        return ~self.down[index]

    def _confirmed(self, index: Tensor, candidates: Tensor, fell: Tensor) -> Tensor:
        rows = fell.nonzero()[:, 0]
        if not len(rows):
            return fell
        targets = None if self.targets is None else self.targets[index[rows]]
        with torch.autocast(self.images.device.type, enabled=False):
            logits = self.model(candidates[rows])
        return fell.scatter(0, rows, fallen(logits, self.labels[index[rows]], targets))
