"""FGSM: one step of size epsilon along the gradient (Goodfellow et al. 2015, arXiv 1412.6572), for every norm."""

import torch
from torch import Tensor, nn

from .losses import Loss
from .pgd import pgd
from .threat import Threat


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    loss: str | Loss = "ce",
    targets: Tensor | None = None,
    start: str = "none",
    relative_step: float = 1.0,
    generator: torch.Generator | None = None,
    mode: str = "eval",
) -> Tensor:
    """One gradient step; arguments as for `pgd`. `start="uniform", relative_step=1.25` starts fast training."""
    return pgd(
        model, images, labels, threat, steps=1, relative_step=relative_step, start=start, loss=loss, targets=targets,
        generator=generator, mode=mode,
    )  # fmt: skip
