"""Transfer: adversarial images made against another network, offered to this one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .threat import Threat


def transfer(stored: Tensor) -> Callable[..., Tensor]:
    """An attack that answers with `stored` (n, c, h, w), image by image those made of the images it is called with.

    `stored` is float32 in [0, 1] or uint8; what rounding moved out of the threat is brought back.
    """
    adversarial = stored.float() / 255 if stored.dtype == torch.uint8 else stored

    def attack(
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        if adversarial.shape != images.shape:
            shapes = f"{tuple(adversarial.shape)} against {tuple(images.shape)}"
            raise ValueError(f"stored: one stored image for each attacked image wanted, got {shapes}")
        return threat.project(adversarial.to(images.device), images)

    return attack
