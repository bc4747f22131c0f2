"""The exponential moving average of a network in training, which is validated and deployed in its place."""

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """Weights and statistics averaged over the steps; `decay` is what the past weighs in one step.

    The memory grows with the run: after n steps the past weighs n / (n + 9) until that reaches `decay`, so that a
    training of few steps is not left at its first ones.

    Torch's own AveragedModel copies its count to the device at each step, which waits for the device.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the network as it is after a step."""
        past = min(self.decay, self.steps / (self.steps + 9))
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        means = [(mean, value) for mean, value in pairs if mean.is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in means], [value for _, value in means], 1 - past)
        for mean, value in pairs:
            if not mean.is_floating_point():  # counts of batches
                mean.copy_(value)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"module": self.module.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.module.load_state_dict(state["module"])
        self.steps = state["steps"]


def _tensors(model: nn.Module) -> chain[Tensor]:
    return chain(model.parameters(), model.buffers())
