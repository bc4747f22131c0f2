"""The momentum iterative method: steps along a decaying sum of gradients (Dong et al. 2018, arXiv 1710.06081).

Against a random network the sum averages over the draws of many steps, so that few draws a step do: through
`eot(model, 5)` 50 steps find what 200 steps of 20 draws do (docs/log.md).
"""

import torch
from torch import Tensor, nn

from .engine import attacked, check, input_gradient
from .losses import Loss, objective
from .threat import Threat, ascend, per_example

CROSSINGS = 5.0  # epsilons that all steps together can go


def momentum(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    steps: int,
    decay: float = 0.9,
    loss: str | Loss = "ce",
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
    mode: str = "eval",
) -> Tensor:
    """Ascent on `loss` by steps of 5 / `steps` epsilons from a uniform start: the last iterate.

    Args:
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64.
        decay: of the sum of gradients from step to step, in [0, 1); 0 keeps the newest alone.
        loss: "ce", "margin", "dlr", or a function (see losses.py).
        targets: (n,) class to reach; None means any but the label.
        generator: source of the random start; the global generators are left alone.

    Returns: (n, c, h, w) float32, within the threat to 1e-6, for exactly `steps` forward and backward passes.

    Raises:
        ValueError: a setting outside its range.
    """
    check(images, labels, targets=targets, steps=steps)
    if not 0 <= decay < 1:
        raise ValueError(f"decay: {decay!r} is not allowed; give a share of at least 0, below 1")
    maximised, size = objective(loss), CROSSINGS / steps * threat.epsilon
    with attacked(model, mode, generator), torch.no_grad():
        project = threat.projection(images)
        adversarial = project(threat.random_start(images, generator))
        moving = torch.zeros_like(images)
        for _ in range(steps):
            gradient, _, _ = input_gradient(model, adversarial, maximised, labels, targets, None)
            gradient = gradient.nan_to_num(0, 0, 0)
            moving = decay * moving + gradient / per_example(
                gradient.abs().flatten(1).sum(1).clamp_min(1e-30), gradient
            )
            adversarial = project(ascend(adversarial, moving, threat, size))
        return adversarial
