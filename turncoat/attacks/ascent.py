"""PGD on the loss of a task that has no wrong class to reach: segmentation, detection.

The steps are those of `pgd`; what is maximised is the network's own loss of each image, all of its terms together, and
nothing falls, so that every image meets every step.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .engine import attacked, input_gradient
from .pgd import begin
from .threat import Threat, ascend, per_example


def ascent(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    threat: Threat,
    *,
    steps: int,
    relative_step: float = 0.25,
    start: str = "uniform",
    generator: torch.Generator | None = None,
    mode: str = "eval",
    keep_highest: bool = False,
) -> Tensor:
    """Projected gradient ascent on the model's own loss of each image.

    Args:
        model: with `losses(outputs, targets)`, (n,), as networks for segmentation and detection have it.
        images, targets: (n, c, h, w) float32 in [0, 1]; n of them, as `losses` takes them.
        relative_step: step size in units of epsilon. start: see `pgd`.
        keep_highest: False, for training: the last iterate. True, for evaluation: of each image the iterate of the
            highest loss, at one forward pass more.

    Returns: (n, c, h, w) float32, within the threat to 1e-6.
    """
    project, size = threat.projection(images), relative_step * threat.epsilon
    losses: Any = model.losses
    with attacked(model, mode, generator), torch.no_grad():
        x = project(begin(images, threat, start, generator))
        best, highest = x, images.new_full((len(images),), -torch.inf)
        for _ in range(steps):
            gradient, found, _ = input_gradient(model, x, losses, targets)
            if keep_highest:
                best, highest = _higher(x, found, best, highest)
            x = project(ascend(x, gradient, threat, size))
        return _higher(x, losses(model(x), targets), best, highest)[0] if keep_highest else x


def _higher(x: Tensor, losses: Tensor, best: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
    better = losses > highest
    return torch.where(per_example(better, x), x, best), torch.where(better, losses, highest)
