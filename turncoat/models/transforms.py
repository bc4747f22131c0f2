"""Random transforms of AToP: Lin et al., ICLR 2024 (arXiv 2401.16352), at the image's own resolution.

    none  nothing is hidden
    rt1   a share of the patches of an 8×8 grid is hidden
    rt2   Gaussian noise, clipped to [0, 1], then rt1
    rt3   the noisy image several times, each time with another share hidden, until every patch was hidden once

The authors enlarge images to 256×256 first; here a patch is 1/8 of the image's side, whatever that is: one pixel of an
8×8 image, three or four of 28. Everything is differentiable in the image.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn

from turncoat.errors import TurncoatError

TRANSFORMS = ("none", "rt1", "rt2", "rt3")
GRID = 8  # patches along a side
# On the images' device; one an image, on the CPU, so that an image's draws hang on nothing beside it; or torch's global
# one, which attacks seed.
Source: TypeAlias = "torch.Generator | Sequence[torch.Generator] | None"


class Transform(nn.Module):
    """Noise and masks, drawn anew at each call.

    Args:
        name: one of `TRANSFORMS`.
        rate: share of the patches that a mask hides; rt3 makes 1/rate masks.
        noise: standard deviation, for images in [0, 1] (rt2, rt3).
        shared_mask: one mask for the whole batch, as the authors' code has it, instead of one an image.
    """

    def __init__(self, name: str, rate: float = 0.25, noise: float = 0.25, shared_mask: bool = False) -> None:
        super().__init__()
        if name not in TRANSFORMS:
            raise TurncoatError(f"transform {name!r} is not defined; there are {', '.join(TRANSFORMS)}")
        self.hidden: Final = round(rate * GRID**2)
        if not 0 < self.hidden < GRID**2:
            raise TurncoatError(f"transform {name}: rate {rate:g} hides {self.hidden} of 64 patches; choose 0.25")
        if name == "rt3" and GRID**2 % self.hidden:
            raise TurncoatError(f"transform rt3: 1/rate must be a whole number, got rate {rate:g}; choose 0.25")
        if noise < 0:
            raise TurncoatError(f"transform {name}: noise {noise:g} is negative; choose 0.25")
        self.spec: Final[dict[str, Any]] = {
            "kind": "transform", "name": name, "rate": rate, "noise": noise, "shared_mask": shared_mask,
        }  # fmt: skip
        self.parts: Final = GRID**2 // self.hidden if name == "rt3" else 1

    def forward(self, images: Tensor, generator: Source = None) -> tuple[Tensor, Tensor]:
        """Draw noise and masks.

        Args:
            images: (n, c, h, w) in [0, 1], h and w at least 8.
            generator: see `Source`; with one an image, each image is a batch of its own (a shared mask is shared by
                nobody).

        Returns: noisy images (n, c, h, w), nothing hidden yet, and masks (n, parts, 1, h, w), 1 where hidden; those of
            one image are disjoint.
        """
        if self.spec["name"] in ("rt2", "rt3"):
            noise = _drawn(torch.randn, images.shape, images, generator)
            images = (images + self.spec["noise"] * noise).clamp(0, 1)
        return images, self.masks(images, generator)

    def masks(self, images: Tensor, generator: Source = None) -> Tensor:
        """Masks (n, parts, 1, h, w) in the images' type and on their device."""
        count, (height, width) = len(images), images.shape[-2:]
        if self.spec["name"] == "none":
            return images.new_zeros(count, 1, 1, height, width)
        drawn = 1 if self.spec["shared_mask"] and not isinstance(generator, Sequence) else count
        keys = _drawn(torch.rand, torch.Size([drawn, GRID**2]), images, generator)
        # the first patches of a random order are hidden by the first mask, the next ones by the next
        order = keys.argsort(1)[:, : self.parts * self.hidden].view(drawn, self.parts, self.hidden)
        hidden = images.new_zeros(drawn, self.parts, GRID**2).scatter_(2, order, 1.0)
        grid = hidden.view(drawn, self.parts, 1, GRID, GRID)
        if (height, width) != (GRID, GRID):
            grid = grid[..., _patch(height, images)[:, None], _patch(width, images)]
        return grid.expand(count, -1, -1, -1, -1)


def _drawn(draw: Callable[..., Tensor], shape: torch.Size, images: Tensor, source: Source) -> Tensor:
    """Random numbers of a shape that begins with the number of images, on the images' device and in their type."""
    if isinstance(source, Sequence):
        return torch.stack([draw(shape[1:], generator=one) for one in source]).to(images)
    return draw(shape, generator=source, device=images.device, dtype=images.dtype)


def _patch(size: int, images: Tensor) -> Tensor:
    """The patch in which each of `size` rows or columns lies: (size,)."""
    if size < GRID:
        raise TurncoatError(f"images of {size} pixels a side: a mask of {GRID}×{GRID} patches needs at least {GRID}")
    return torch.arange(size, device=images.device) * GRID // size


def surrounding_mean(images: Tensor, masks: Tensor) -> Tensor:
    """Hidden pixels filled with the mean of the visible ones around them: what an inpainter has to beat.

    These lie in the eight patches that touch the hidden one; where those are all hidden too, the neighbourhood grows by
    a patch on each side until something is visible.

    Args:
        images: (n, c, h, w). masks: (n, 1, h, w), 1 where hidden.
    """
    rows, columns = _patch(images.shape[-2], images), _patch(images.shape[-1], images)
    visible = 1 - masks
    total = _to_grid(images * visible, rows, columns)
    count = _to_grid(visible, rows, columns)
    filled, known = torch.zeros_like(total), torch.zeros_like(count)
    for reach in range(1, GRID):
        side = 2 * reach + 1
        box = nn.functional.avg_pool2d(torch.cat([total, count], 1), side, 1, reach) * side**2
        fresh = (known == 0) & (box[:, -1:] > 0.5)
        filled = torch.where(fresh, box[:, :-1] / box[:, -1:].clamp_min(1), filled)
        known = known + fresh
    return images * visible + filled[..., rows[:, None], columns] * masks


def _to_grid(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sums over patches: (n, c, h, w) to (n, c, 8, 8)."""
    grid = values.new_zeros(*values.shape[:-2], GRID, values.shape[-1]).index_add_(-2, rows, values)
    return values.new_zeros(*values.shape[:-2], GRID, GRID).index_add_(-1, columns, grid)
