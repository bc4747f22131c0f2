"""The training loop of every method: schedule, precision, weight averaging, selection, checkpoints, a stop on NaN."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from turncoat.data.batches import Batch, DeviceSplit, batches, batches_an_epoch
from turncoat.errors import Diverged
from turncoat.settings import TrainingSettings
from turncoat.training import parallel
from turncoat.training.average import Average
from turncoat.training.checkpoint import Checkpoint
from turncoat.training.compiled import compiled_forward, passing
from turncoat.training.compute import Compute
from turncoat.training.schedule import learning_rate

CHECKPOINT_SECONDS = 20.0  # a kill costs at most this much work, and a study of small cells no time at all
State = dict[str, Tensor]


class Trainable(Protocol):
    """What the loop needs of a method."""

    model: nn.Module  # what is trained, on the device
    selection: ClassVar[str]  # the history column whose maximum is `best`

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss to minimise, and detached scalars to log."""

    def before_step(self) -> None:
        """Called between the backward pass and the optimiser step."""

    def deploy(self, model: nn.Module) -> nn.Module:
        """The module to evaluate and publish, out of the (possibly averaged) trained one."""


@dataclass
class Trained:
    """History rows (one an epoch), weights of the deployed module, passes a training image."""

    history: list[dict[str, float]] = field(default_factory=list)
    best: State = field(default_factory=dict)
    last: State = field(default_factory=dict)
    best_epoch: int = 0
    passes: dict[str, int] = field(default_factory=lambda: {"counting": 0, "images": 0, "forward": 0, "backward": 0})


def fit(
    method: Trainable,
    train: DeviceSplit,
    settings: TrainingSettings,
    compute: Compute,
    *,
    seed: int,
    validate: Callable[[nn.Module], dict[str, float]],
    checkpoint: Checkpoint | None = None,
    log: Callable[[dict[str, float]], None] = lambda row: None,
) -> Trained:
    """Train `method.model` for `settings.epochs`, resuming from `checkpoint` where it holds a state.

    Args:
        validate: measures of a deployed module on the validation split, among them `method.selection`.
        log: called with each new history row.

    Raises:
        Diverged: the loss or a gradient is not finite; raised before the weights are touched, so the last
            checkpoint is good.
    """
    outcome = Trained()
    optimizer = _optimizer(method.model, settings, compute)
    averaged = Average(method.model, settings.ema) if settings.ema else None
    done = _restore(checkpoint, method.model, optimizer, averaged, outcome)
    _count_passes(method.model, outcome.passes)
    fast = compiled_forward(method.model, compute.device) if compute.compile is True else None
    per_epoch = batches_an_epoch(train, settings.batch_size, settings.steps)
    bar = tqdm(total=settings.epochs, initial=done, unit="epoch", disable=not sys.stderr.isatty(), leave=False)
    saved = time.monotonic()
    for epoch in range(done, settings.epochs):
        started = time.monotonic()
        # No longer than the epoch: what is validated, deployed and copied is the plain network.
        with passing(method.model, fast) if fast else nullcontext():
            row = _epoch(method, train, settings, compute, optimizer, averaged, seed, epoch, per_epoch, outcome.passes)
        speed = per_epoch * min(settings.batch_size, len(train)) / (time.monotonic() - started)
        last = epoch + 1 == settings.epochs
        if last or (epoch + 1) % settings.validate_every == 0:
            deployed = method.deploy(averaged.module if averaged else method.model)
            row |= validate(deployed)
            outcome.last = {name: value.detach().clone() for name, value in deployed.state_dict().items()}
            scores = [past[method.selection] for past in outcome.history if method.selection in past]
            if not scores or row[method.selection] >= max(scores):  # of equals the later: it has trained longer
                outcome.best, outcome.best_epoch = outcome.last, epoch + 1
        outcome.history.append(row)
        log(row)
        bar.set_postfix_str(f"accuracy {row.get('train_accuracy', math.nan):.3f}, {speed:,.0f} images/s", refresh=False)
        bar.update()
        if checkpoint and not last and parallel.rank() == 0 and time.monotonic() - saved > CHECKPOINT_SECONDS:
            checkpoint.save(_state(method.model, optimizer, averaged, outcome), epoch + 1)
            saved = time.monotonic()
    bar.close()
    return outcome


def _epoch(
    method: Trainable,
    train: DeviceSplit,
    settings: TrainingSettings,
    compute: Compute,
    optimizer: torch.optim.Optimizer,
    averaged: Average | None,
    seed: int,
    epoch: int,
    per_epoch: int,
    passes: dict[str, int],
) -> dict[str, float]:
    method.model.train()
    sums: dict[str, Tensor] = {}
    passes["counting"] = 1
    before = dict(passes)
    broken = torch.zeros((), device=compute.device)
    rate = 0.0
    s = settings
    for step, batch in enumerate(batches(train, s.batch_size, s.crop, s.flip, seed, epoch, s.steps)):
        rate = learning_rate(settings, (epoch + step / per_epoch) / settings.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        with compute.autocast(), parallel.shard(batch) as own:
            loss, parts = method.loss(own)
        loss, parts = parallel.backward(method.model, loss, parts, len(own.labels))
        method.before_step()
        passes["images"] += len(own.labels)
        # The fused optimisers skip a step on the device when `found_inf` is set: nothing waits for the host here.
        norm = nn.utils.get_total_norm([p.grad for p in method.model.parameters() if p.grad is not None])
        broken = torch.maximum(broken, (~torch.isfinite(loss + norm)).float())
        optimizer.found_inf = broken  # type: ignore[attr-defined]
        optimizer.step()
        if averaged:
            averaged.update(method.model)
        for name, value in {"loss": loss, **parts}.items():
            sums[name] = sums[name] + value if name in sums else value.clone()
    passes |= parallel.added(passes, before)
    passes["counting"] = 0
    if broken.item():
        raise Diverged(
            f"epoch {epoch + 1}: the loss or a gradient is not finite; the weights before it are kept. "
            "Lower `lr`, or set compute.precision to float32"
        )
    return {
        "epoch": epoch + 1,
        "lr": rate,
        **{name: round((value / per_epoch).item(), 6) for name, value in sums.items()},
    }


def _optimizer(model: nn.Module, settings: TrainingSettings, compute: Compute) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if settings.optimizer == "adam":
        beta1, beta2 = settings.betas
        return torch.optim.AdamW(
            parameters, settings.lr, betas=(beta1, beta2), weight_decay=settings.weight_decay, fused=True
        )
    return torch.optim.SGD(
        parameters,
        settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov and settings.momentum > 0,
        fused=True,
    )


def _count_passes(model: nn.Module, passes: dict[str, int]) -> None:
    """Count the images sent forward and backward through the trained module, the attack's included.

    What is called of it by itself counts where it is frozen, a classifier behind a purifier say: attacks and targets
    need its passes. What trains and is called by itself is a part of a whole pass that is counted already.
    """
    within = {"depth": 0}  # calls of the whole under way; apart from `passes`, whose numbers no compiler may guard

    def backward(gradient: Tensor) -> None:
        passes["backward"] += len(gradient)

    def count(logits: Tensor) -> None:
        if not passes["counting"]:  # a look at the validation split is no cost of the method
            return
        passes["forward"] += len(logits)
        if logits.requires_grad:
            logits.register_hook(backward)

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        within["depth"] += 1

    def leave(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        within["depth"] -= 1
        count(logits)

    def alone(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        if not within["depth"]:
            count(logits)

    model.register_forward_pre_hook(enter)
    model.register_forward_hook(leave)
    for frozen in _frozen(model):
        frozen.register_forward_hook(alone)


def _frozen(module: nn.Module) -> list[nn.Module]:
    """The largest parts none of whose weights trains."""
    weights = [parameter.requires_grad for parameter in module.parameters()]
    if weights and not any(weights):
        return [module]
    return [part for child in module.children() for part in _frozen(child)]


def _state(
    model: nn.Module, optimizer: torch.optim.Optimizer, averaged: Average | None, outcome: Trained
) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "averaged": averaged.state_dict() if averaged else None,
        "outcome": vars(outcome),
    }


def _restore(
    checkpoint: Checkpoint | None,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: Average | None,
    outcome: Trained,
) -> int:
    """Put everything back as the checkpoint holds it; the number of epochs that are done."""
    state = checkpoint.load() if checkpoint else None
    if state is None:
        return 0
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if averaged:
        averaged.load_state_dict(state["averaged"])
    vars(outcome).update(state["outcome"])
    print(f"resuming after epoch {len(outcome.history)}", flush=True)
    return len(outcome.history)
