"""Compiled training: the plain one's numbers up to rounding, its own to the byte; one message where it cannot be."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.defaults import DEFAULTS
from tests.training.test_training import COMPUTE, PLAN, Plain, split, validate
from turncoat import models
from turncoat.attacks import Threat, attacked, input_gradient
from turncoat.attacks.losses import objective
from turncoat.data.batches import DeviceSplit
from turncoat.errors import TurncoatError
from turncoat.methods.base import Task
from turncoat.papers.arms import arm_settings, method_class
from turncoat.settings import ComputeSettings, load
from turncoat.settings import validate as validated
from turncoat.training import Checkpoint, fit, initialised, resolve
from turncoat.training import loop as loop_module
from turncoat.training.compiled import WORTHWHILE, compiled_forward, lacking, passing

ROOT = Path(__file__).parents[2]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
COMPILED = replace(COMPUTE, compile=True)
AUTO = replace(COMPUTE, compile="auto")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: CUDA graphs cannot be tried here")
with_a_compiler = pytest.mark.skipif(lacking("cpu") is not None, reason=f"cannot compile here: {lacking('cpu')}")


@pytest.fixture
def afresh():
    """No graphs of earlier tests: torch keeps a few for each function, whoever calls it."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_auto_compiles_long_trainings_alone(monkeypatch):
    long = WORTHWHILE["cpu"]
    monkeypatch.setattr("turncoat.training.compute.lacking", lambda device: None)
    assert AUTO.for_run(long).compile is True
    assert AUTO.for_run(long - 1).compile is False
    assert replace(AUTO, device=CUDA).for_run(long).compile is False, "a GPU is through with it before it is compiled"
    assert replace(AUTO, device=CUDA).for_run(WORTHWHILE["cuda"]).compile is True
    for fixed in (True, False):
        assert replace(AUTO, compile=fixed).for_run(long).compile is fixed


def test_without_a_compiler_auto_does_without_and_true_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert AUTO.for_run(10**12).compile is False
    with pytest.raises(TurncoatError, match=r"compute\.compile: there is no compiler no-such-compiler: install.*false"):
        resolve(ComputeSettings(device="cpu", compile=True))


def test_what_yaml_does_not_take_for_a_boolean_is_refused():
    with pytest.raises(TurncoatError, match=r"compute\.compile: Input should be True, False or 'auto' \(got 'on'\)"):
        validated(ComputeSettings, {"compile": "on"}, "compute")


def test_a_step_of_each_method_costs_what_its_attack_does():
    settings, task = load(DEFAULTS), Task(Threat("linf", 0.1), 10)
    wanted = {"standard": 0, "pgd": 10, "advamd": 5, "rat": 0, "rat-pgd": 10, "reverse": 0, "atop": 1, "fgsm": 1}
    steps = {
        arm: method_class(settings.arms[arm]["method"])(arm_settings(settings, arm), task).attack_steps
        for arm in wanted
    }
    assert steps == wanted


def test_hooks_see_compiled_passes_and_afterwards_all_is_plain():
    model, seen = nn.Linear(2, 2), []
    model.register_forward_hook(lambda module, inputs, out: seen.append(float(out)))
    with passing(model, lambda images: images.sum()):
        model(torch.ones(2))
    assert seen == [2.0]
    assert "forward" not in vars(model)
    with pytest.raises(KeyError), passing(model, lambda images: images.sum()):
        raise KeyError
    assert "forward" not in vars(model)


def test_a_network_that_cannot_be_compiled_is_told_in_one_message(afresh):
    def broken(graph, inputs):
        raise NotImplementedError("no kernel for this")

    model = nn.Linear(2, 2)
    forward = torch.compile(model.forward, backend=broken)
    message = r"compute\.compile: .*no kernel for this.*; report it, or set .* false"
    with pytest.raises(TurncoatError, match=message), passing(model, forward):
        model(torch.ones(1, 2))
    with pytest.raises(RuntimeError, match="of another kind"), passing(model, forward):
        raise RuntimeError("of another kind")


def losses_and_gradients(model, images, labels, mode):
    """Logits as an attack meets them, those of a training pass, the input's gradient; from statistics of one pass."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
    with torch.no_grad():
        model.train()(images)
    with attacked(model, mode):
        gradient, _, logits = input_gradient(model, images, objective("ce"), labels, None, None)
    return logits, model(images).detach(), gradient


@pytest.mark.slow
@with_a_compiler
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(("network", "shape"), [("small_cnn", (1, 28, 28)), ("resnet18", (3, 32, 32))])
def test_float32_logits_are_those_of_the_plain_pass(afresh, network, shape, mode):
    model = initialised(0, lambda: models.Classifier(network, 10, shape, [0.5] * shape[0], [0.25] * shape[0]))
    images, labels = torch.rand(8, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(8)
    plain = losses_and_gradients(model, images, labels, mode)
    with passing(model, compiled_forward(model, CPU)):
        compiled = losses_and_gradients(model, images, labels, mode)
    for wanted, got in zip(plain[:2], compiled[:2], strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    wanted, got = plain[2], compiled[2]  # where rounding takes a unit across its kink, a gradient differs by more
    assert (got - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.slow
@with_a_compiler
def test_a_compiled_run_is_the_plain_one_and_resumes_to_the_byte(afresh, tmp_path, monkeypatch):
    def run(compute, **more):
        return fit(Plain(), split(), PLAN, compute, seed=0, **{"validate": validate, **more})

    plain, whole = run(COMPUTE), run(COMPILED)
    torch.compiler.reset()
    assert whole.passes == plain.passes
    for name, value in plain.last.items():
        torch.testing.assert_close(whole.last[name], value, atol=1e-5, rtol=0)
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", -1.0)

    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 3:
            raise Stop

    with pytest.raises(Stop):
        run(COMPILED, checkpoint=Checkpoint(tmp_path), log=stop)
    torch.compiler.reset()  # as a new process: what was compiled is gone
    resumed = run(COMPILED, checkpoint=Checkpoint(tmp_path))
    assert models.tensor_digest(resumed.last) == models.tensor_digest(whole.last)
    assert (resumed.history, resumed.passes) == (whole.history, whole.passes)


ARMS = [
    "standard",
    "pgd",
    "trades",
    "mart",
    "mart-awp",
    "advamd",
    "fast-advprop",
    "rat",
    "rat-universal",
    "reverse",
    "atop",
]


def trained(arm, device, compute):
    """Two epochs of an arm of params.yaml on 32 images, whatever it builds on made the same way before."""
    settings, task = load(DEFAULTS), Threat("linf", 0.1)
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (32, 1, 8, 8), generator=source, dtype=torch.uint8).to(device)
    data = DeviceSplit(images, (torch.arange(32) % 10).to(device))

    def prepared(name, section, pretrained):
        plan = arm_settings(settings, name, section)
        method = method_class(plan.method)(plan.model_copy(update={"start": "baseline"}), Task(task, 10, pretrained))
        network = initialised(0, lambda: models.Classifier("small_cnn", 10, (1, 8, 8), [0.5], [0.25])).to(device)
        seen = method.prepare(network, data, 0)
        method.model.to(device)
        return method, seen

    foundation = {}
    for name in arm_settings(settings, arm).builds_on:
        method, _ = prepared(name, "pretrained", {})
        foundation[name] = method.deploy(method.model)
    method, seen = prepared(arm, "arms", foundation)
    plan = PLAN.model_copy(update={"epochs": 2, "batch_size": 16, "lr": 0.01, "crop": 0})
    return fit(method, seen, plan, compute, seed=0, validate=validate)


@pytest.mark.slow
@with_a_compiler
@pytest.mark.parametrize("arm", ARMS)
def test_every_method_trains_compiled_as_it_does_plainly(afresh, arm):
    from torch._dynamo.utils import counters

    plain = trained(arm, CPU, COMPUTE)
    counters.clear()
    compiled = trained(arm, CPU, COMPILED)
    assert counters["stats"]["unique_graphs"] >= 1, "nothing was compiled"
    assert compiled.passes == plain.passes
    for name, value in plain.last.items():
        torch.testing.assert_close(compiled.last[name], value, atol=1e-4, rtol=1e-4)


# Reads of the device by the host, and copies of the host's numbers to it; `aten::nonzero` waits to know how many.
WAITS = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::lift_fresh"}


@pytest.mark.parametrize("arm", ARMS)
def test_no_call_of_a_training_step_would_make_a_device_wait(arm, monkeypatch):
    """On the CPU, by the names of what is called; what the GPU itself says is the last test's."""
    from torch.profiler import profile

    batches, called = loop_module.batches, set()

    def watched(*given):
        for batch in batches(*given):
            with profile(acc_events=True) as seen:
                yield batch
            called.update(event.name for event in seen.events())

    monkeypatch.setattr(loop_module, "batches", watched)
    trained(arm, CPU, COMPUTE)
    assert "aten::convolution" in called, "nothing was seen"
    assert not called & WAITS


COUNTED = """
import json, torch
from torch._dynamo.utils import counters
from turncoat import models
from turncoat.training.compiled import compiled_forward

network = models.Classifier("small_cnn", 3, (1, 8, 8), (0.1,), (0.3,)).train()
compiled_forward(network, torch.device("cpu"))(torch.rand(4, 1, 8, 8)).sum().backward()
print(json.dumps({name: counters["inductor"][f"fxgraph_cache_{name}"] for name in ("hit", "miss")}))
"""


@pytest.mark.slow
@with_a_compiler
def test_a_second_process_compiles_nothing(tmp_path):
    """Where graphs are kept, as stages keep them, only the first cell of a study pays."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    counted = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", COUNTED], env=environment, capture_output=True, text=True)
        counted.append(json.loads(done.stdout))
    assert counted[0]["miss"] > 0
    assert counted[1]["hit"] == counted[0]["miss"] + counted[0]["hit"]
    assert counted[1]["miss"] == 0


@on_a_gpu
@pytest.mark.parametrize("arm", ARMS)
def test_captured_graphs_train_as_plain_passes_do(afresh, monkeypatch, arm):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    compute = replace(resolve(ComputeSettings(device="cuda", precision="float32")), compile=False)
    plain = trained(arm, CUDA, compute)
    captured = trained(arm, CUDA, replace(compute, compile=True))
    assert captured.passes == plain.passes
    for name, value in plain.last.items():
        torch.testing.assert_close(captured.last[name], value, atol=1e-3, rtol=1e-3)


@on_a_gpu
@pytest.mark.parametrize("arm", ARMS)
def test_nothing_in_a_training_step_waits_for_the_host(arm):
    compute = replace(resolve(ComputeSettings(device="cuda", precision="float32")), compile=False)
    trained(arm, CUDA, compute)  # what is set up at the first use may wait
    batches = loop_module.batches

    def watched(*given):
        for batch in batches(*given):
            torch.cuda.set_sync_debug_mode("error")
            yield batch
            torch.cuda.set_sync_debug_mode("default")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module, "batches", watched)
        try:
            trained(arm, CUDA, compute)
        finally:
            torch.cuda.set_sync_debug_mode("default")
