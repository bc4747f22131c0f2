"""Copies of networks, also of those that `copy.deepcopy` refuses."""

import copy

import torch
from torch import Tensor, nn


@torch.no_grad()  # or the copies of TorchScript's weights would be made by autograd
def copied(model: nn.Module) -> nn.Module:
    """A copy that shares no tensor with `model`; what cannot be copied (a lock, an open file) is shared.

    Tensors that autograd made, as old weight or spectral norm leave them on a module, are copied by value.

    Raises:
        TypeError: the network hands out itself in place of a copy, or what holds its parts cannot be copied.
    """
    memo: dict[int, object] = {}
    made = None
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    try:
        made = copy.deepcopy(model, dict(memo))
    except Exception:  # whatever a part of somebody's network raises when it is copied: it is looked for, and shared
        made = copy.deepcopy(model, memo | _uncopyable(model))
    if made is model:
        raise TypeError(f"{type(model).__name__} cannot be copied")
    return made


def _uncopyable(model: nn.Module) -> dict[int, object]:
    """The attributes of the network's modules that cannot be copied, as `copy.deepcopy` wants to be told of them."""
    found: dict[int, object] = {}
    for module in model.modules():
        for name, value in vars(module).items():
            if name in ("_modules", "_parameters", "_buffers"):
                continue
            try:
                copy.deepcopy(value)
            except Exception:
                found[id(value)] = value
    return found
