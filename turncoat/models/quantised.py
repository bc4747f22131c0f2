"""A classifier rounded after training: weights, and inputs of each layer, on grids of 2^bits values.

Simulated by torch's fake quantisation, whose gradient passes straight through where a value lies within the grid, so
that a calibrator can be trained through it. Batch norm and biases stay in floating point.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from turncoat.errors import TurncoatError

SHRINKS = torch.linspace(0.3, 1.0, 29)  # shares of the full range that are tried as the grid's range


class Quantised(nn.Module):
    """A classifier on grids.

    Args:
        classifier: its weights are taken as they are; `quantise` rounds them.
        weights: bits, 2...8. activations: bits of every convolution's and linear layer's input; None leaves them.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, classifier: nn.Module, weights: int, activations: int | None = None) -> None:
        super().__init__()
        for name, bits in (("weights", weights), ("activations", activations)):
            if bits is not None and not 2 <= bits <= 8:
                raise TurncoatError(f"quantised: {name} must have 2 to 8 bits, got {bits}")
        self.spec: Final[dict[str, Any]] = {
            "kind": "quantised",
            "classifier": classifier.spec,
            "weights": weights,
            "activations": activations,
        }
        self.classifier = classifier
        layers = _layers(classifier)
        self.register_buffer("scale", torch.ones(len(layers)))
        self.register_buffer("zero", torch.zeros(len(layers), dtype=torch.int32))
        if activations is not None:
            for place, layer in enumerate(layers):
                layer.register_forward_pre_hook(partial(self._round, place, 2**activations - 1))

    def _round(self, place: int, highest: int, layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(inputs[0].float(), self.scale[place], self.zero[place], 0, highest)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        logits: Tensor = self.classifier(images)
        return logits


@torch.no_grad()
def quantise(classifier: nn.Module, weights: int, activations: int | None, images: Tensor) -> Quantised:
    """Round `classifier` in place after training.

    Each output channel's weights, and each layer's input on `images` (n, c, h, w) in [0, 1], get the grid of least
    squared error among the shrunken ranges.
    """
    classifier.eval()
    layers = _layers(classifier)
    seen: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, place=place: seen.update({place: inputs[0].detach()}))
        for place, layer in enumerate(layers)
    ]
    if activations is not None:
        classifier(images)
    for hook in hooks:
        hook.remove()
    for layer in layers:
        rows = layer.weight.flatten(1)
        layer.weight.copy_(_on_grid(rows, *best_grid(rows, weights), weights).view_as(layer.weight))
    rounded = Quantised(classifier, weights, activations).to(images.device)
    for place, values in seen.items():
        scale, zero = best_grid(values.reshape(1, -1), activations or 8)
        rounded.scale[place], rounded.zero[place] = scale[0], zero[0]
    return rounded


def best_grid(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale (n,) float32 and zero point (n,) int32 of the grid of least squared error for each of the `rows` (n, m).

    A value v becomes scale · (clip(round(v / scale) + zero, 0, 2^bits − 1) − zero). Grids hold 0 exactly.
    """
    low, high = rows.amin(1).clamp_max(0), rows.amax(1).clamp_min(0)
    least = torch.full_like(low, torch.inf)
    scale, zero = torch.ones_like(low), torch.zeros_like(low, dtype=torch.int32)
    for shrink in SHRINKS.tolist():
        trial = ((high - low) * shrink / (2**bits - 1)).clamp_min(1e-12)
        middle = (-low * shrink / trial).round().to(torch.int32)
        error = (_on_grid(rows, trial, middle, bits) - rows).square().sum(1)
        better = error < least
        least = torch.where(better, error, least)
        scale, zero = torch.where(better, trial, scale), torch.where(better, middle, zero)
    return scale, zero


def _on_grid(rows: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    return torch.fake_quantize_per_channel_affine(rows, scale, zero, 0, 0, 2**bits - 1)


def _layers(classifier: nn.Module) -> Sequence[nn.Conv2d | nn.Linear]:
    return [module for module in classifier.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
