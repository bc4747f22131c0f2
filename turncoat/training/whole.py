"""A shard that is computed with as the whole batch would be: draws and batch norm. See parallel.py."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from turncoat.errors import TurncoatError

FILLS = tuple(
    getattr(Tensor, f"{name}_") for name in ("uniform", "normal", "exponential", "bernoulli", "random", "cauchy")
)
DRAWS: tuple[Callable[..., Tensor], ...] = (torch.rand, torch.randn, torch.randint)
NORMS = (functional.batch_norm, torch.batch_norm)


class Whole(TorchFunctionMode):
    """While it is active, draws from `source` and batch norm in training are those of the whole batch.

    A draw whose first dimension is a multiple of the shard's rows is one an example, be it of several copies of the
    shard one after the other; any other is the same on every rank.
    """

    def __init__(self, source: torch.Generator, rows: slice, total: int) -> None:
        super().__init__()
        self.source, self.rows, self.total = source, rows, total
        self.count = rows.stop - rows.start

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if function in NORMS:
            return _norm(function, *args, **given)
        if given.get("generator") is not self.source:
            return function(*args, **given)
        if function in FILLS:
            return self._fill(function, args[0], args[1:], given)
        if function in DRAWS:
            where, shape = _shape(function, args, given)
            if not self._by_example(shape):
                return function(*args, **given)
            head = () if function is not torch.randint else args[:where]
            given.pop("size", None)
            return self._cut(function(*head, (shape[0] // self.count * self.total, *shape[1:]), **given))
        if function in (torch.randperm, torch.bernoulli, torch.multinomial, torch.normal):
            raise TurncoatError(f"compute.processes: this arm draws with torch.{function.__name__}; set it to 1")
        return function(*args, **given)

    def _by_example(self, shape: Sequence[int]) -> bool:
        return bool(shape) and shape[0] > 0 and shape[0] % self.count == 0

    def _cut(self, whole: Tensor) -> Tensor:
        copies = whole.view(-1, self.total, *whole.shape[1:])[:, self.rows]
        return copies.reshape(-1, *whole.shape[1:])

    def _fill(self, function: Callable[..., Tensor], target: Tensor, args: Any, given: dict[str, Any]) -> Tensor:
        if not self._by_example(target.shape):
            return function(target, *args, **given)
        whole = target.new_empty(len(target) // self.count * self.total, *target.shape[1:])
        if target.dim() == 4 and not target.is_contiguous():
            whole = whole.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            return target.copy_(self._cut(function(whole, *args, **given)))


def _shape(function: Callable[..., Any], args: Sequence[Any], given: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    """Where the shape stands among the arguments of a draw, and what it is."""
    if "size" in given:
        return len(args), tuple(given["size"])
    for place, value in enumerate(args):
        if isinstance(value, Iterable):
            return place, tuple(value)
    return 0, () if function is torch.randint else tuple(args)


class _Sum(torch.autograd.Function):
    """The sum over the ranks; so is its gradient."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def _norm(
    function: Callable[..., Tensor],
    images: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *more: Any,
) -> Tensor:
    """Batch norm over the rows of all ranks. Mean first, then the squares around it: exact as one process's."""
    if function is torch.batch_norm:  # there weight and bias stand before the statistics
        running_mean, running_var, weight, bias = weight, bias, running_mean, running_var
    if not training:
        return functional.batch_norm(images, running_mean, running_var, weight, bias, False, momentum, eps)
    wide = images if images.dtype == torch.float64 else images.float()
    axes = [axis for axis in range(wide.dim()) if axis != 1]
    shape = [1, -1] + [1] * (wide.dim() - 2)
    count = torch.tensor([wide.numel() / wide.shape[1]], dtype=wide.dtype, device=wide.device)
    first: Tensor = _Sum.apply(torch.cat([wide.sum(axes), count]))
    total = first[-1].detach()
    mean = first[:-1] / total
    centred = wide - mean.view(shape)
    variance: Tensor = _Sum.apply(centred.square().sum(axes)) / total
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * total / (total - 1)).to(running_var.dtype), momentum)
    made = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None and bias is not None:
        made = made * weight.view(shape) + bias.view(shape)
    return made.to(images.dtype)
