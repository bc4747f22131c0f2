"""Which device, which precision: `auto` made explicit, and the same numbers for the same seed."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import nn

from turncoat.errors import TurncoatError
from turncoat.settings import ComputeSettings, Switch
from turncoat.training.compiled import REMEDY, WORTHWHILE, lacking
from turncoat.training.parallel import size


@dataclass(frozen=True)
class Compute:
    """Resolved compute settings. `precision` is that of training passes; evaluation is float32 always.

    `compile` stays `auto`, and then nothing is compiled, until `for_run` knows how long the training is.
    """

    device: torch.device
    precision: str
    channels_last: bool
    compile: Switch

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which a training step runs.

        It keeps the reduced copy of a weight from one pass to the next: a method that moves weights within its loss
        calls `torch.clear_autocast_cache` (see weight_perturbation.py).
        """
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.precision))

    def place(self, module: nn.Module) -> nn.Module:
        """The module on the device, in the memory format that is fastest there."""
        if self.channels_last:
            return module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
        return module.to(self.device)

    def for_run(self, passes: int) -> "Compute":
        """These settings for a training that sends so many images through the network in all, attacks included."""
        if size() > 1:
            return replace(self, compile=False)
        if self.compile != "auto":
            return self
        device = self.device.type
        return replace(self, compile=passes >= WORTHWHILE[device] and lacking(device) is None)


def _threads() -> int:
    text = os.environ.get("OMP_NUM_THREADS", "1")
    if not text.isdigit() or int(text) < 1:
        raise TurncoatError(f"OMP_NUM_THREADS: {text!r} is not a whole number from 1")
    return int(text)


def resolve(settings: ComputeSettings) -> Compute:
    """Make `auto` explicit and set torch to give the same result for the same seed.

    Raises:
        TurncoatError: `cuda` is asked for and there is none, or `compile` and there is no compiler; nothing falls back
            silently.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise TurncoatError("params.yaml: compute.device: cuda is not available here; set it to auto or cpu")
    cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    if cuda:  # a CPU's kernels are deterministic as they are, and asking costs it a two-second import
        # cuBLAS is deterministic only with a fixed workspace, which it reads from the environment at its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # That also fills all memory with NaN before it is written to: a kernel for each tensor, some 350 in a step of a
        # ResNet-18. It is for code that reads what it never wrote.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False  # else convolutions in "float32", of verdicts too, keep ten bits
    else:  # sums are added in one order, whoever starts the stage
        torch.set_num_threads(_threads())
    if settings.compile is True and (missing := lacking("cuda" if cuda else "cpu")):
        raise TurncoatError(f"params.yaml: compute.compile: {missing}, {REMEDY}")
    auto_precision = "bfloat16" if cuda else "float32"
    return Compute(
        device=torch.device("cuda" if cuda else "cpu"),
        precision=auto_precision if settings.precision == "auto" else settings.precision,
        channels_last=settings.channels_last in ("auto", True),  # 0.6 to 0.75 of the time on CPUs too
        compile=settings.compile,
    )
