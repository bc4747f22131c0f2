"""One cell over several processes: `compute.processes` of them, started by torchrun, each with a shard of every batch.

The result is that of one process up to rounding. Every rank makes the whole batch, in the same order and with the same
augmentation, and keeps its rows (`shard`). Within a step
- what is drawn from the batch's generator for the rows of a shard is drawn for the whole batch and cut alike, so that a
  method's noise does not hang on the number of processes;
- batch norm in training takes the moments of the whole batch (whole.py): PyTorch's SyncBatchNorm knows no CPU;
- gradients are summed (`backward`), each rank's loss weighed by its rows, before the optimiser sees them.
With one process nothing here computes anything.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from turncoat.data.batches import Batch
from turncoat.errors import TurncoatError
from turncoat.settings import ComputeSettings
from turncoat.training.whole import Whole

FEWEST = 2  # rows of a shard
ALONE = "in one process, for its loss cannot be taken of a batch in shards"


def size() -> int:
    """How many processes share this work; 1: it is alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is; 0 keeps the files, the log and the run."""
    return dist.get_rank() if size() > 1 else 0


def launch(settings: ComputeSettings, alone: str = "") -> None:
    """Become one of `compute.processes` processes that work together; with 1 nothing happens.

    The first call takes this process's place with torchrun, which starts the same command so many times; in each of
    them the call joins the others (gloo on a CPU, NCCL on GPUs, one each).

    Args:
        alone: why this work cannot be shared; it is told, and done by this process.

    Raises:
        TurncoatError: there are fewer GPUs than processes, or the network is to be compiled.
    """
    count = settings.processes
    if count == 1 or size() > 1:
        return
    if alone:
        print(alone, flush=True)
        return
    cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    if cuda and torch.cuda.device_count() < count:
        there = torch.cuda.device_count()
        raise TurncoatError(f"params.yaml: compute.processes: {count} of them want as many GPUs; there are {there}")
    if settings.compile is True:
        raise TurncoatError(
            "params.yaml: compute.compile: true does not go with compute.processes; set one of them back"
        )
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        module = getattr(sys.modules["__main__"].__spec__, "name", "")
        command = ["torchrun", "--standalone", f"--nproc-per-node={count}", "-m", module, *sys.argv[1:]]
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", *command[1:]])
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    if rank():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - up to the process's end
        os.environ["TURNCOAT_TRACKING"] = "off"


def described() -> dict[str, int]:
    """What a cell's files say of it, where several processes shared the cell: equal up to rounding is not equal."""
    return {"processes": size()} if size() > 1 else {}


def barrier() -> None:
    """Wait for all."""
    if size() > 1:
        dist.barrier()


def of_first(value: Any) -> Any:
    """What rank 0 has, on every rank."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def gathered(own: Mapping[Any, Any]) -> dict[Any, Any]:
    """What all ranks have, put together, on every rank."""
    if size() == 1:
        return dict(own)
    boxes: list[dict[Any, Any]] = [{} for _ in range(size())]
    dist.all_gather_object(boxes, dict(own))
    return {key: value for box in boxes for key, value in box.items()}


def added(counts: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """`counts` with what every rank has counted since `before`."""
    if size() == 1:
        return dict(counts)
    new = torch.tensor([counts[name] - before[name] for name in counts], dtype=torch.int64, device=_device())
    dist.all_reduce(new)
    return {name: before[name] + count for name, count in zip(counts, new.tolist(), strict=True)}


@contextmanager
def shard(batch: Batch) -> Iterator[Batch]:
    """This rank's rows of a batch, and meanwhile draws and batch norm as for all of it.

    Raises:
        TurncoatError: the batch is too small to be shared out.
    """
    if size() == 1:
        yield batch
        return
    total = len(batch.labels)
    if total < FEWEST * size():
        raise TurncoatError(f"params.yaml: compute.processes: {size()} of them cannot share a batch of {total} images")
    rows = slice(total * rank() // size(), total * (rank() + 1) // size())
    own = replace(batch, images=batch.images[rows].contiguous(), labels=batch.labels[rows], index=batch.index[rows])
    with Whole(batch.generator, rows, total):
        yield own


def backward(model: nn.Module, loss: Tensor, parts: dict[str, Tensor], rows: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Run the backward pass; each gradient becomes that of the whole batch.

    Args: loss, parts: means over this rank's `rows`.

    Returns: loss and parts of the whole batch, detached.
    """
    if size() == 1:
        loss.backward()
        return loss.detach(), parts
    share = _share(rows, loss)
    (loss * share).backward()  # weighed before: batch norm passes gradients from rank to rank
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    told = torch.stack([loss.detach(), *(parts[name].to(loss.dtype) for name in sorted(parts))]) * share
    _sum([*gradients, told])
    return told[0], dict(zip(sorted(parts), told[1:], strict=True))


def gradients(loss: Tensor, weights: Sequence[Tensor], rows: int) -> list[Tensor]:
    """Gradients, taken within a step, of the loss of the whole batch. Args: loss: mean over this rank's `rows`."""
    if size() == 1:
        return list(torch.autograd.grad(loss, weights))
    found = [gradient.clone() for gradient in torch.autograd.grad(loss * _share(rows, loss), weights)]
    _sum(found)
    return found


def _share(rows: int, like: Tensor) -> Tensor:
    """Which part of all rows these are."""
    total = torch.tensor(float(rows), device=like.device, dtype=torch.float64)
    dist.all_reduce(total)
    return (rows / total).to(like.dtype)


def _sum(tensors: Sequence[Tensor]) -> None:
    """Each tensor summed over the ranks, in place: one exchange for all of a kind."""
    for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [tensor.detach() for tensor in tensors if tensor.dtype == kind]
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])
        dist.all_reduce(flat)
        for tensor, piece in zip(alike, flat.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.copy_(piece.view(tensor.shape))


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
