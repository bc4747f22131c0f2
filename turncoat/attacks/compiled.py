"""PGD's step as one compiled function: forward pass, loss, input gradient, move and projection (torch.compile).

The first call takes seconds to minutes, and the first with another loss, norm or batch size; so it pays in long runs
only. On CUDA the step is a CUDA graph as well.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from turncoat.errors import TurncoatError

from .engine import HALF_SCALE, Counter, half
from .losses import Objective
from .threat import Projection, Threat, ascend

RECOMPILATIONS = 64  # torch stops at 8, fewer than the losses, threats and batch sizes of an evaluation


def compiled_step(
    model: nn.Module,
    x: Tensor,
    project: Projection,
    maximised: Objective,
    labels: Tensor,
    targets: Tensor | None,
    index: Tensor | None,
    threat: Threat,
    size: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `pgd.plain_step`, compiled; a `Counter` around the network goes on counting.

    Call it as `pgd` does: parameters that ask for no gradient, under `torch.no_grad`.

    Raises:
        TurncoatError: no compiler, or a network or a loss that torch.compile cannot follow.
    """
    network = model.model if isinstance(model, Counter) else model
    run = _compiled(x.device.type)
    try:
        with torch._dynamo.config.patch(recompile_limit=RECOMPILATIONS):
            following, losses, logits = run(network, x, project, maximised, labels, targets, index, threat, size)
    except _faults() as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TurncoatError(
            f"compile: it needs a C++ compiler, on CUDA Triton, and a network that torch.compile can follow ({said}); "
            "leave compile out"
        ) from error
    if isinstance(model, Counter):
        model.forwards += len(x)
        model.backwards += len(x)
    if x.is_cuda:  # the next run of a CUDA graph overwrites what this one gave
        return following.clone(), losses.clone(), logits.clone()
    return following, losses, logits


def _step(
    network: nn.Module,
    x: Tensor,
    project: Projection,
    maximised: Objective,
    labels: Tensor,
    targets: Tensor | None,
    index: Tensor | None,
    threat: Threat,
    size: float,
) -> tuple[Tensor, Tensor, Tensor]:
    def total(images: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        logits = network(images)
        losses = maximised(logits, labels, targets, index)
        return losses.sum() * (HALF_SCALE if half(logits) else 1.0), (losses, logits)

    gradient, (losses, logits) = torch.func.grad(total, has_aux=True)(x)
    gradient = gradient / (HALF_SCALE if half(logits) else 1.0)
    return project(ascend(x, gradient, threat, size)), losses, logits


@cache
def _compiled(device: str) -> Any:
    # a random network draws what it would draw uncompiled
    options: dict[str, Any] = {"fallback_random": True, "triton.cudagraphs": device == "cuda"}
    return torch.compile(_step, fullgraph=True, options=options)


def _faults() -> tuple[type[Exception], ...]:
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return TorchDynamoException, FailOnRecompileLimitHit, CppCompileError, InvalidCxxCompiler
