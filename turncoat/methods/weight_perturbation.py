"""AWP: Wu, Xia, Wang, "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS 2020.

The weights are attacked like the images: one step up the gradient of the arm's own loss, each layer's length gamma
times the length of its weights; the gradient that trains is taken there, and the weights are put back before the step.

    v_l = gamma · |w_l| · g_l / |g_l|        for weights of two dimensions or more; biases and batch norm stay

The authors put the weights back after the optimiser's step. The order matters for weight decay only, which here acts
on the weights themselves. Their weights come back by subtraction, up to rounding; here they come back exactly.

Autocast keeps the reduced copy that it made of a weight and does not see that the weight changed: each change drops
those copies, or the second pass would be the first one again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from turncoat.training.parallel import gradients


class WeightPerturbation:
    """Perturbs the weights of one network, and remembers what they were."""

    def __init__(self, model: nn.Module, gamma: float) -> None:
        self.model, self.gamma = model, gamma
        self.weights: list[Tensor] = [
            weight for weight in model.parameters() if weight.dim() > 1 and weight.requires_grad
        ]
        self.saved: list[Tensor] = []

    def ascend(self, loss: Callable[[], Tensor], rows: int = 1) -> None:
        """Move the weights up the gradient of `loss()`; running statistics of batch norm do not move in that pass.

        Args: rows: that `loss` is the mean of, for where several processes share a batch.
        """
        with _statistics_held(self.model):
            found = gradients(loss(), self.weights, rows)
        with torch.no_grad():
            self.saved = [weight.detach().clone() for weight in self.weights]
            lengths = torch._foreach_norm(self.saved)
            slopes = torch._foreach_norm(found)
            steps = [self.gamma * length / (slope + 1e-20) for length, slope in zip(lengths, slopes, strict=True)]
            for weight, gradient, step in zip(self.weights, found, steps, strict=True):
                weight.addcmul_(gradient, step)
        torch.clear_autocast_cache()

    def restore(self) -> None:
        """Put the weights back bit by bit; nothing happens where they are not perturbed."""
        with torch.no_grad():
            for weight, before in zip(self.weights, self.saved, strict=False):
                weight.copy_(before)
        torch.clear_autocast_cache()
        self.saved = []


@contextmanager
def _statistics_held(model: nn.Module) -> Iterator[None]:
    norms = [norm for norm in model.modules() if isinstance(norm, _NormBase) and norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False  # in training mode: batch statistics are used, running ones left alone
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
