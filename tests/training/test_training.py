"""The training loop: the same twice, the same after a kill, stopped before a step that would spoil the weights."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from turncoat import models
from turncoat.data.batches import DeviceSplit, augment, batches
from turncoat.errors import TurncoatError
from turncoat.randomness import generator
from turncoat.settings import ComputeSettings, TrainingSettings
from turncoat.training import Checkpoint, Scratch, fingerprint, fit, initialised, learning_rate, resolve
from turncoat.training import loop as loop_module
from turncoat.training.average import Average

COMPUTE = resolve(ComputeSettings(device="cpu"))
PLAN = TrainingSettings(epochs=4, batch_size=8, lr=0.1, crop=1, flip=True)
AVERAGED = PLAN.model_copy(update={"ema": 0.9, "optimizer": "adam"})


def split(n=40, seed=0):
    source = generator(seed, "test")
    images = torch.randint(0, 256, (n, 1, 8, 8), generator=source, dtype=torch.uint8)
    return DeviceSplit(images, torch.randint(0, 10, (n,), generator=source))


class Plain:
    """The least a method can be."""

    selection = "validation_clean"

    def __init__(self, seed=0):
        self.model = initialised(seed, lambda: models.Classifier("small_cnn", 10, (1, 8, 8), [0.5], [0.25]))

    def loss(self, batch):
        value = nn.functional.cross_entropy(self.model(batch.images), batch.labels)
        return value, {"index": batch.index.float().mean()}

    def before_step(self):
        pass

    def deploy(self, model):
        return model


def validate(model):
    return {"validation_clean": 0.5, "validation_robust": 0.0}


def train(plan=PLAN, seed=0, **more):
    return fit(Plain(seed), split(), plan, COMPUTE, seed=seed, **{"validate": validate, **more})


@pytest.mark.parametrize("plan", [PLAN, AVERAGED])
def test_the_same_seed_gives_the_same_bytes(plan):
    first, second, other = train(plan), train(plan), train(plan, seed=1)
    assert models.tensor_digest(first.last) == models.tensor_digest(second.last)
    assert first.history == second.history
    assert models.tensor_digest(first.last) != models.tensor_digest(other.last)


def test_training_learns():
    plan = PLAN.model_copy(update={"epochs": 60, "crop": 0, "flip": False})
    losses = [row["loss"] for row in train(plan).history]
    assert losses[-1] < 0.3 < losses[0]


@pytest.mark.parametrize("plan", [PLAN, AVERAGED])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_run_ends_as_an_undisturbed_one(tmp_path, monkeypatch, plan, stop_after):
    whole = train(plan)
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", -1.0)

    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == stop_after + 1:  # the checkpoint of the epoch before is on disk by then
            raise Stop

    with pytest.raises(Stop):
        train(plan, checkpoint=Checkpoint(tmp_path), log=stop)
    rows = []
    resumed = train(plan, checkpoint=Checkpoint(tmp_path), log=rows.append)
    assert [row["epoch"] for row in rows] == list(range(stop_after + 1, plan.epochs + 1))
    assert models.tensor_digest(resumed.last) == models.tensor_digest(whole.last)
    assert models.tensor_digest(resumed.best) == models.tensor_digest(whole.best)
    assert (resumed.history, resumed.best_epoch, resumed.passes) == (whole.history, whole.best_epoch, whole.passes)


def test_best_is_the_later_of_equals_and_keeps_its_own_weights():
    scores = iter([0.2, 0.7, 0.7, 0.1])
    seen = []

    def scored(model):
        seen.append(models.tensor_digest(model.state_dict()))
        return {"validation_clean": next(scores)}

    outcome = train(validate=scored)
    assert outcome.best_epoch == 3
    assert models.tensor_digest(outcome.best) == seen[2]
    assert models.tensor_digest(outcome.last) == seen[3]


def test_an_average_remembers_more_the_longer_it_is():
    model = nn.BatchNorm1d(1)
    average, mean = Average(model, decay=0.5), None
    for step, value in enumerate([1.0, 3.0, 5.0, -2.0, *range(20)]):
        past = min(0.5, step / (step + 9))
        mean = value if mean is None else past * mean + (1 - past) * value
        with torch.no_grad():
            model.weight.fill_(value)
            model.running_mean.fill_(2 * value)
            model.num_batches_tracked.fill_(step)
        average.update(model)
        assert average.module.weight.item() == pytest.approx(mean, rel=1e-5)
        assert float(average.module.running_mean) == pytest.approx(2 * mean, rel=1e-5)
        assert int(average.module.num_batches_tracked) == step
    assert past == 0.5


def test_passes_are_those_of_training_alone():
    def looking(model):
        model(torch.rand(3, 1, 8, 8))
        return validate(model)

    passes = train(validate=looking).passes
    assert passes["forward"] == passes["backward"] == passes["images"] == 4 * 40


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.fault(8, "a NaN loss, and a NaN gradient of a finite loss", "stops, weights as they were before the step")
def test_a_loss_that_is_no_number_stops_before_the_step(where):
    method = Plain()
    before = models.tensor_digest(method.model.state_dict())

    class Backwards(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.nan

    def loss(batch):
        method.model.eval()  # so that no batch statistics move either
        value = nn.functional.cross_entropy(method.model(batch.images), batch.labels)
        return (value * torch.nan if where == "loss" else Backwards.apply(value)), {}

    method.loss = loss
    with pytest.raises(TurncoatError, match=r"epoch 1: the loss or a gradient is not finite"):
        fit(method, split(), PLAN, COMPUTE, seed=0, validate=validate)
    assert models.tensor_digest(method.model.state_dict()) == before


@pytest.mark.fault(
    4,
    "a checkpoint bit-flipped, emptied, overwritten",
    "the one before is taken, and none if both are damaged",
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.load() is None
    checkpoint.save({"epoch": 1}, 1)
    checkpoint.save({"epoch": 2}, 2)
    assert checkpoint.load() == {"epoch": 2}
    newest = checkpoint.files[0]
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(bytes(content))
    assert checkpoint.load() == {"epoch": 1}
    assert "damaged" in capsys.readouterr().out
    newest.write_bytes(b"")
    checkpoint.files[1].write_bytes(b"nonsense")
    assert checkpoint.load() is None


@pytest.mark.fault(2, "a setting or an input file changed", "another fingerprint, hence another scratch folder")
def test_the_fingerprint_hangs_on_settings_and_inputs(tmp_path):
    path = tmp_path / "data"
    path.write_text("one")
    first = fingerprint({"a": 1}, [path])
    assert first == fingerprint({"a": 1}, [path])
    assert first != fingerprint({"a": 2}, [path])
    path.write_text("two")
    assert first != fingerprint({"a": 1}, [path])


@pytest.mark.fault(
    5,
    "a second process enters the scratch folder of the first",
    "refused, the first one's process id named",
)
def test_a_second_process_at_the_same_work_is_refused(tmp_path):
    with Scratch("key", root=tmp_path) as scratch:
        code = f"""
            from turncoat.training import Scratch
            with Scratch("key", root={str(tmp_path)!r}):
                pass
        """
        second = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
        assert second.returncode == 1
        assert f"process {os.getpid()} is at this very work" in second.stderr
        scratch.clear()
    assert not scratch.folder.exists()


KILLED = """
    import sys, torch
    torch.set_num_threads(1)
    from tests.training.test_training import *
    from turncoat.training import train_cell
    loop_module.CHECKPOINT_SECONDS = -1.0
    plan = PLAN.model_copy(update={"epochs": 40})
    key = fingerprint({}, [])
    train_cell(Plain(), split(), plan, COMPUTE, cell={"dataset": "d", "arm": "a", "seed": 0}, settings={}, key=key,
               folder=Path(sys.argv[1]), validate=validate, log=lambda epoch, row: print(epoch, flush=True))
"""


def run_cell(cwd, root, kill_at=None):
    code = "from pathlib import Path\n" + textwrap.dedent(KILLED)
    process = subprocess.Popen(
        [sys.executable, "-c", code, "out"],
        cwd=cwd,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.strip() == str(kill_at):
            process.send_signal(signal.SIGKILL)
    process.wait()
    return process.returncode


def test_a_finished_work_takes_its_stale_folders_along_and_no_others(tmp_path, capsys):
    def left(key, work, *files):
        (tmp_path / key).mkdir()
        for name in files:
            (tmp_path / key / name).write_text("left by a kill")
        (tmp_path / key / "lock").write_text(f"1 {work}\n")

    left("stale", "training d/a/0", "checkpoint-0.pt", ".checkpoint-1.pt.x.tmp")
    left("unfinished", "training d/b/0", "checkpoint-0.pt")
    left("downloads", "", "archive")
    with Scratch("held", "training d/a/0", tmp_path) as other, Scratch("new", "training d/a/0", tmp_path) as scratch:
        (other.folder / "journal").write_text("1")
        assert "training d/a/0: begun afresh; an unfinished run had other settings" in capsys.readouterr().out
        scratch.clear()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["downloads", "held", "unfinished"]
    with Scratch("idle", "training d/c/0", tmp_path):
        pass
    assert not (tmp_path / "idle").exists(), "nothing was kept in it"
    with Scratch("unfinished", "training d/b/0", tmp_path):
        (tmp_path / "unfinished" / ".checkpoint-1.pt.x.tmp").touch()
    assert capsys.readouterr().out == ""
    with Scratch("unfinished", "training d/b/0", tmp_path) as again:
        assert sorted(path.name for path in again.folder.iterdir()) == ["checkpoint-0.pt", "lock"]


def test_the_seconds_of_a_training_are_those_of_all_its_runs(tmp_path):
    first = Checkpoint(tmp_path)
    first._began -= 100
    first.save({}, 1)
    again = Checkpoint(tmp_path)
    assert again.seconds < 1
    again.load()
    assert 100 < again.seconds < 110


@pytest.mark.slow
@pytest.mark.fault(1, "the training process killed in epochs 3, 14 and 33", "weights, history and summary to the byte")
def test_three_kills_leave_no_trace(tmp_path, request):
    root = request.config.rootpath
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert run_cell(tmp_path / "whole", root) == 0
    for at in (3, 14, 33):
        assert run_cell(tmp_path / "killed", root, at) == -signal.SIGKILL
        assert not (tmp_path / "killed" / "out").exists()
    assert run_cell(tmp_path / "killed", root) == 0
    names = ["best.safetensors", "history.json", "last.safetensors", "training.json"]
    for name in names:
        assert (tmp_path / "whole/out" / name).read_bytes() == (tmp_path / "killed/out" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "killed/out").iterdir()) == names
    assert [path.name for path in (tmp_path / "killed/.scratch").iterdir()] == ["durations"]


@given(st.integers(0, 3), st.booleans(), st.integers(1, 5), st.integers(0, 9))
def test_augmentation_moves_pixels_and_makes_none(crop, flip, count, seed):
    images = split(count, seed).images + 1  # uint8 wraps: any zero left is padding or 255 + 1
    out = augment(images, crop, flip, generator(seed))
    assert out.shape == images.shape
    assert out.dtype == torch.uint8
    for before, after in zip(images, out, strict=True):
        padded = nn.functional.pad(before, (crop, crop, crop, crop))
        views = [padded[:, y : y + 8, x : x + 8] for y in range(2 * crop + 1) for x in range(2 * crop + 1)]
        views += [view.flip(2) for view in views] if flip else []
        assert any(torch.equal(after, view) for view in views)


def test_batches_cover_an_epoch_once_in_an_order_of_its_own():
    data = split(40)
    epochs = [torch.cat([batch.index for batch in batches(data, 8, 0, False, 0, epoch)]) for epoch in range(2)]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(40))
    assert not torch.equal(*epochs)
    (only,) = batches(data, 100, 0, False, 0, 0)
    assert len(only.labels) == 40
    assert only.images.max() <= 1
    assert torch.equal(only.labels, data.labels[only.index])


@pytest.mark.parametrize(
    ("update", "points"),
    [
        ({"schedule": "constant"}, {0.0: 1.0, 0.99: 1.0}),
        ({"schedule": "cosine"}, {0.0: 1.0, 0.5: 0.5, 1.0: 0.0}),
        ({"schedule": "cosine", "warmup": 0.2}, {0.0: 0.0, 0.1: 0.5, 0.2: 1.0, 0.6: 0.5}),
        ({"schedule": "cyclic"}, {0.0: 0.0, 0.2: 0.5, 0.4: 1.0, 0.7: 0.5, 1.0: 0.0}),
        ({"schedule": "step", "milestones": [0.5, 0.75]}, {0.49: 1.0, 0.5: 0.1, 0.75: 0.01}),
    ],
)
def test_learning_rates(update, points):
    plan = TrainingSettings(epochs=1, lr=1.0).model_copy(update=update)
    for progress, rate in points.items():
        assert learning_rate(plan, progress) == pytest.approx(rate, abs=1e-9)


@pytest.mark.fault(28, "compute.device: cuda where there is none", "stops, names the setting")
def test_cuda_is_not_replaced_silently():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(TurncoatError, match=r"compute\.device: cuda is not available"):
        resolve(ComputeSettings(device="cuda"))


def test_bfloat16_trains_and_keeps_float32_weights():
    compute = replace(COMPUTE, precision="bfloat16")
    outcome = fit(Plain(), split(), PLAN, compute, seed=0, validate=validate)
    assert all(value.dtype in (torch.float32, torch.int64) for value in outcome.last.values())
    assert outcome.history[-1]["loss"] < outcome.history[0]["loss"] * 1.5
