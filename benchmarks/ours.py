"""What has no peer: the training step of each arm, and the evaluation of a cell, beside the least that they could cost.

A step's least is its multiplications at the speed of a large matrix product, which is what the device can do; an
evaluation's is its passes at the speed of bare forward and gradient passes, measured in the same round.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from turncoat import attacks
from turncoat.attacks import Threat
from turncoat.attacks.losses import objective
from turncoat.data.batches import DeviceSplit
from turncoat.evaluation import build_suite, evaluate
from turncoat.evaluation.recording import evaluation_cost
from turncoat.methods.base import Method, Task
from turncoat.papers.arms import arm_settings, method_class, schedule
from turncoat.settings import Settings, load
from turncoat.training import loop, resolve
from turncoat.training.average import Average
from turncoat.training.compiled import compiled_forward, passing

Job = dict[str, Any]
BITS = {"float32": 32.0, "bfloat16": 16.0}
SIDE = {"cuda": 8192, "cpu": 1024}  # of the matrices whose product stands for the device's speed


class Multiplications(TorchDispatchMode):
    """Counts the FLOP of convolutions and matrix products, of their gradients only what is asked for.

    Torch's own FlopCounterMode hooks modules too, which `torch.autograd.grad` does not bear.
    """

    flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.flop += count(*args, **(kwargs or {}), out_val=made)
        return made


class Step:
    """The training step of an arm: an epoch of one batch by the training loop itself, augmentation, gradient norm and
    weight average included; on the images given, or on the arm's part of them.

    Args:
        split: on the device of `model`. dataset: its name in params.yaml. size: of the whole training split, which
            decides whether `compile: auto` compiles.
        job: see worker.py; `precision` and `compile` may be "auto", which is then what the study trains with.
    """

    def __init__(self, model: nn.Module, split: DeviceSplit, dataset: str, size: int, job: Job) -> None:
        settings = load()
        self.method, self.split = _prepared(settings, job["train"], "arms", model, split, job["epsilon"])
        plan = schedule(settings, dataset, job["train"])
        compute = resolve(settings.compute)
        precision = compute.precision if job["precision"] == "auto" else job["precision"]
        compute = replace(compute, device=split.labels.device, precision=precision, compile=job.get("compile", False))
        self.compute = compute.for_run(plan.epochs * size * (1 + self.method.attack_steps))
        # a rate at which the network is still the same one after all rounds
        self.plan = plan.model_copy(update={"batch_size": len(self.split), "lr": 1e-3})
        model = self.method.model
        self.optimizer = loop._optimizer(model, self.plan, self.compute)
        self.averaged = Average(model, plan.ema) if plan.ema else None
        plain: Callable[..., Tensor] = model.forward
        self.forward = compiled_forward(model, split.labels.device) if self.compute.compile else plain
        with Multiplications() as counted:
            self.take(0)  # the first run, which does not count
        self.flop = counted.flop
        if self.compute.compile:
            with passing(model, self.forward):
                for _ in range(2):  # graphs are captured at the second
                    self.take(0)

    def take(self, seed: int) -> None:
        """One step; the host reads its loss at the end, as the loop does at the end of an epoch."""
        passes = {"counting": 0, "images": 0}
        loop._epoch(self.method, self.split, self.plan, self.compute, self.optimizer, self.averaged, seed, 0, 1, passes)

    def run(self, seed: int) -> dict[str, float]:
        """Seconds of one step; its images, FLOP, share of a matrix product's speed, bits of its arithmetic, whether it
        was compiled, and on CUDA the most bytes held."""
        device = self.split.labels.device
        cuda = device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        with passing(self.method.model, self.forward):
            seconds = timed(lambda: self.take(seed), device)
        found = {"seconds": seconds, "images": len(self.split), "flop": float(self.flop)}
        found |= {"bits": BITS[self.compute.precision], "compiled": float(self.compute.compile is True)}
        found["utilisation"] = self.flop / seconds / product_speed(device, self.compute.precision)
        return found | ({"bytes": float(torch.cuda.max_memory_allocated())} if cuda else {})


def evaluation(model: nn.Module, images: Tensor, labels: Tensor, job: Job) -> dict[str, float]:
    """Seconds of an evaluation under a suite of params.yaml, and of its passes alone."""
    settings = load()
    suite = build_suite(job["evaluate"], settings.suites[job["evaluate"]])
    alone = {name: plan for name, plan in suite.attacks.items() if not plan.stored}
    threat, bare = Threat("linf", job["epsilon"]), attacks.folded(model.eval(), images[:2])
    made: list[Any] = []
    held_out = (images, labels)  # what makes universal perturbations: its speed is asked for, not its result

    def whole() -> None:
        suited = replace(suite, attacks=alone)
        made.append(evaluate(model, images, labels, threat, suited, seed=job["seed"], held_out=held_out))

    def forward() -> None:
        with torch.no_grad():
            bare(images)

    def gradient() -> None:
        attacks.input_gradient(bare, images, objective("ce"), labels, None, None)

    for warm in (forward, gradient):
        warm()
    seconds = timed(whole, images.device)
    passes = evaluation_cost(made[0])
    alone_forward, both = timed(forward, images.device), timed(gradient, images.device)
    least = (passes["forward"] - passes["backward"]) * alone_forward + passes["backward"] * both
    return {"seconds": seconds, "images": len(images), "least": least, **passes}


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of `work`, a GPU's included; on one CPU thread processor time, which no other process lengthens."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    _wait(device)
    started = clock()
    work()
    _wait(device)
    return clock() - started


@cache
def product_speed(device: torch.device, precision: str) -> float:
    """FLOP/s of a large matrix product: the best of five."""
    side = SIDE[device.type]
    matrix = torch.rand(side, side, device=device, dtype=getattr(torch, precision))
    return 2 * side**3 / min(timed(lambda: matrix @ matrix, device) for _ in range(5))


def _prepared(
    settings: Settings, arm: str, section: Any, model: nn.Module, split: DeviceSplit, epsilon: float
) -> tuple[Method[Any], DeviceSplit]:
    """An arm's method on a copy of `model`; what it builds on is as a fresh network of that kind."""
    plan = arm_settings(settings, arm, section)
    foundation = {}
    for name in plan.builds_on:
        builder, _ = _prepared(settings, name, "pretrained", model, split, epsilon)
        foundation[name] = builder.deploy(builder.model)
    task = Task(Threat("linf", epsilon), int(model.spec["classes"]), foundation)  # type: ignore[index, call-overload]
    method = method_class(plan.method)(plan.model_copy(update={"start": "baseline"}), task)
    network = copy.deepcopy(model).requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen = method.prepare(network, split, 0)
    method.model.to(split.labels.device)
    return method, seen


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
