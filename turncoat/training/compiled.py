"""The forward pass of training compiled: the same results up to rounding, long trainings in less time.

The pass is compiled and not a whole attack step, so that every method gains, whatever it does between two passes. Torch
makes one graph each for what a training step needs: the attack's passes, whose parameters are frozen and whose backward
pass is the input's gradient alone, and the training passes. Sizes are static: all batches of a training are alike.

On CUDA the attack's passes are captured as CUDA graphs: they are nine tenths of the work, and launching their kernels
one by one takes longer than computing them. The training passes are not: their gradients would lie in the memory that
the next replay writes to, and a method may still be adding to them.
"""

import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import environ
from pathlib import Path
from shutil import which

import torch
from torch import Tensor, nn

from turncoat.errors import TurncoatError

Forward = Callable[..., Tensor]
# Image passes of a training from which compiling pays; measured on a CPU, estimated for a GPU (docs/performance.md).
WORTHWHILE = {"cpu": 2_000_000, "cuda": 5_000_000}
REMEDY = "or set compute.compile in params.yaml to false"


def lacking(device: str) -> str | None:
    """What this machine lacks to compile for `device` ("cpu" or "cuda"), with the remedy; None where it has all."""
    variable, usual = ("CC", "gcc") if device == "cuda" else ("CXX", "clang++" if sys.platform == "darwin" else "g++")
    compiler = environ.get(variable, usual)
    if which(compiler) is None:
        return f"there is no compiler {compiler}: install one, name another in the environment variable {variable}"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.is_file() else f"{header} is not there: install Python's headers (python3-dev)"


def compiled_forward(model: nn.Module, device: torch.device) -> Forward:
    """The forward pass of `model`, compiled at its first calls."""
    # a random network draws what it would draw uncompiled
    options: dict[str, str | int | bool | Callable[..., object]] = {"fallback_random": True}
    training: Forward = torch.compile(model.forward, dynamic=False, options=options)
    if device.type != "cuda":
        return training
    attack: Forward = torch.compile(model.forward, dynamic=False, options=options | {"triton.cudagraphs": True})

    def forward(*inputs: object, **named: object) -> Tensor:
        learning = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in model.parameters())
        return training(*inputs, **named) if learning else attack(*inputs, **named)

    return forward


@contextmanager
def passing(model: nn.Module, forward: Forward) -> Iterator[None]:
    """Send what `model` is called with through `forward` meanwhile, and what a copy of it is called with; hooks stay.

    Raises:
        TurncoatError: torch could not compile the network.
    """
    vars(model)["forward"] = forward
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = " ".join([line for line in str(error).splitlines() if line.strip()][:2])
        raise TurncoatError(
            f"compute.compile: the network could not be compiled ({reason}); report it, {REMEDY}"
        ) from error
    finally:
        del vars(model)["forward"]
