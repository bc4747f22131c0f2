"""Faults 1 to 3, 5, 30 and 31: real processes killed, two at once, no git, other numbers of threads."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest
import torch

from tests.faults import kills
from tests.faults.study import ENVIRONMENT, ROOT, copy, edit, shell, shrink, stage
from turncoat.files import sha256
from turncoat.reading import read_yaml
from turncoat.training import Checkpoint, Scratch

pytestmark = pytest.mark.slow
CELL = ("--dataset", "digits", "--arm", "mart", "--seed", "0")
# the finetune stage with a checkpoint each epoch: an epoch here is far shorter than the 20 s between two
CAREFUL = f"""
import sys
from turncoat.training import loop
loop.CHECKPOINT_SECONDS = -1.0
from stages.common import run
from stages.finetune import main
sys.argv = ["finetune", *{CELL!r}]
run(main)
"""


def wait_for(happens, process: subprocess.Popen[str], seconds: float = 120):
    """What `happens` returns once that is true, or fail: the process ended, or time is up."""
    until = time.monotonic() + seconds
    while not (found := happens()):
        assert process.poll() is None, "it ended before its time"
        assert time.monotonic() < until
        time.sleep(0.005)
    return found


# ----------------------------------------------------------------------------------------------- fault 1: kill -9


@pytest.mark.fault(1, "a study killed six times at random moments under `dvc repro`", "summary.json to the byte")
@pytest.mark.fault(31, "one cell after another under `dvc repro`, against two at a time", "summary.json to the byte")
def test_01_kills_under_dvc_repro_leave_no_trace(finished: Path, tmp_path: Path) -> None:
    told = kills.disturb(tmp_path / "study", shrink, kills=6, seconds=240, seed=1)
    assert told.kills >= 4
    assert told.summary == (finished / "reports/summary.json").read_bytes()
    records = sorted(path.relative_to(finished) for path in finished.glob("reports/records/*/*/*/record.json"))
    assert len(records) == 2
    for path in records:
        assert sha256(tmp_path / "study" / path) == sha256(finished / path)
    assert "all whole" in stage(tmp_path / "study", "verify")


def begun(folder: Path, sign: str) -> str:
    """Start the careful stage and kill it when it has said `sign` and a checkpoint is there; what it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", CAREFUL], cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    said = ""
    for line in process.stdout:
        said += line
        if sign in line:
            break
    wait_for(lambda: list((folder / ".scratch").glob("*/checkpoint-*.pt")), process)
    process.kill()
    process.communicate()
    return said


@pytest.mark.fault(
    1, "a training killed three times, on the CPU and on a GPU where there is one", "weights to the byte"
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_01_a_training_killed_three_times(finished: Path, tmp_path: Path, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    disturbed, undisturbed = (copy(finished, tmp_path / name) for name in ("disturbed", "undisturbed"))
    for folder in (disturbed, undisturbed):
        edit(folder, lambda params: params["datasets"]["digits"]["finetuning"].update(epochs=60))
        edit(folder, lambda params: params["compute"].update(device=device))
        shutil.rmtree(folder / "models/digits/mart")
    begun(disturbed, "60 epochs")
    for _ in range(2):
        assert "resuming after epoch" in begun(disturbed, "resuming")
    assert "resuming after epoch" in shell(disturbed, sys.executable, "-c", CAREFUL)
    stage(undisturbed, "finetune", *CELL)
    for path in (undisturbed / "models/digits/mart/0").iterdir():
        assert sha256(disturbed / path.relative_to(undisturbed)) == sha256(path)


@pytest.mark.fault(
    1,
    "`kill` of `make repro` itself",
    "all that it started ends with it; run again, the study is what it would have been",
)
def test_01_the_whole_study_ended_by_kill(finished: Path, tmp_path: Path) -> None:
    folder = copy(finished, tmp_path / "study")
    edit(folder, lambda params: params["datasets"]["digits"]["finetuning"].update(epochs=500))
    head = subprocess.Popen(
        [sys.executable, "-m", "stages.repro"], cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: list((folder / ".scratch").glob("*/lock")), head)
    started = psutil.Process(head.pid).children(recursive=True)
    assert len(started) > 2
    head.terminate()
    _, said = head.communicate(timeout=60)
    assert head.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1] == "ended by a signal; what was begun goes on when `make repro` is run again"
    assert psutil.wait_procs(started, timeout=20)[1] == []
    edit(folder, lambda params: params["datasets"]["digits"]["finetuning"].update(epochs=1))
    shell(folder, sys.executable, "-m", "stages.repro")
    assert sha256(folder / "reports/summary.json") == sha256(finished / "reports/summary.json")


# ---------------------------------------------------------------------------------- fault 2: changed while unfinished


def _setting(folder: Path) -> None:
    edit(folder, lambda params: params["arms"]["mart"].update(beta=6.0))


def _code(folder: Path) -> None:
    with open(folder / "turncoat/papers/mart/method.py", "a") as file:
        file.write("\nEDITED = True\n")


def _data(folder: Path) -> None:
    edit(folder, lambda params: params["datasets"]["digits"]["data"].update(split_seed=7))
    stage(folder, "download", "--dataset", "digits")


@pytest.mark.fault(2, "beta, the code, or the split changed after a kill", "begun afresh, said so; as if never begun")
@pytest.mark.parametrize("change", [_setting, _code, _data])
def test_02_no_stale_resume(finished: Path, tmp_path: Path, change) -> None:
    disturbed, undisturbed = (copy(finished, tmp_path / name) for name in ("disturbed", "undisturbed"))
    for folder in (disturbed, undisturbed):
        edit(folder, lambda params: params["datasets"]["digits"]["finetuning"].update(epochs=30))
        shutil.rmtree(folder / "models/digits/mart")
    begun(disturbed, "30 epochs")
    with open(disturbed / "turncoat/papers/mart/method.py", "a") as file:
        file.write("\n# a comment\n")
    assert "resuming after epoch" in begun(disturbed, "resuming")  # as long as nothing changed that counts
    for folder in (disturbed, undisturbed):
        change(folder)
    said = shell(disturbed, sys.executable, "-c", CAREFUL)
    assert "training digits/mart/0: begun afresh" in said
    assert "resuming" not in said
    stage(undisturbed, "finetune", *CELL)
    for name in ("best.safetensors", "training.json"):
        path = Path("models/digits/mart/0") / name
        assert sha256(disturbed / path) == sha256(undisturbed / path)
    assert [path.name for path in (disturbed / ".scratch").glob("*") if len(path.name) == 32] == []


# ---------------------------------------------------------------------------------- fault 3: killed while writing


def latest(folder: Path) -> int:
    """The newest number in the headers of a folder's checkpoints."""
    headers = [path.open("rb").readline().split() for path in folder.glob("checkpoint-*.pt")]
    return max((int(header[0]) for header in headers), default=0)


@pytest.mark.fault(3, "killed while it writes 8 MB checkpoints, five times", "a whole one loads, temporaries are gone")
def test_03_killed_in_a_write(tmp_path: Path) -> None:
    code = f"""
        import torch
        from turncoat.training import Checkpoint, Scratch
        with Scratch("key", root={str(tmp_path)!r}) as scratch:
            checkpoint = Checkpoint(scratch.folder)
            number = (checkpoint.load() or {{"number": 0}})["number"]
            while True:
                number += 1
                checkpoint.save({{"number": number, "x": torch.full((2_000_000,), float(number))}}, number)
    """
    folder, reached, strays = tmp_path / "key", 0, 0
    for _ in range(5):
        command = [sys.executable, "-c", re.sub(r"^ {8}", "", code, flags=re.M)]
        process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT)
        before = reached + 2 if reached else 0

        def writing(before: int = before) -> bool:
            return list(folder.glob(".*.tmp")) != [] and latest(folder) > before

        wait_for(writing, process)
        process.kill()
        process.wait()
        strays += len(list(folder.glob(".*.tmp")))
        with Scratch("key", root=tmp_path) as scratch:
            state = Checkpoint(scratch.folder).load()
            assert not list(folder.glob(".*.tmp"))
        assert state["number"] > reached
        assert torch.equal(state["x"], torch.full((2_000_000,), float(state["number"])))
        reached = state["number"]
    assert strays, "no kill fell into a write: this has shown nothing"


# ------------------------------------------------------------------------------------------ fault 5: two at once


@pytest.mark.fault(5, "a second `dvc repro` of a cell; a third when DVC alone was killed", "refused, the holder named")
def test_05_two_repros_of_one_cell(finished: Path, tmp_path: Path) -> None:
    folder = copy(finished, tmp_path / "study")
    edit(folder, lambda params: params["datasets"]["digits"]["finetuning"].update(epochs=100_000))
    shell(folder, "dvc", "repro", "inputs")  # what `-s` leaves out: the cells read their settings from it
    command = ("dvc", "repro", "-s", "finetune@digits-mart-0")
    first = subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        lock = wait_for(lambda: list((folder / ".scratch").glob("*/lock")), first)[0]
        holder = wait_for(lambda: lock.read_text().partition(" ")[0], first)
        said = shell(folder, *command, ok=False)
        assert f"(PID {first.pid}): " in said
        assert "is busy" in said
        first.kill()  # DVC alone: the stage goes on as an orphan
        first.wait()
        said = shell(folder, *command, ok=False)
        assert f"process {holder} is at this very work; wait for it or end it" in said
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)


# ------------------------------------------------------------------------------------- fault 30: no git repository


@pytest.mark.fault(30, "the repository as a zip file, unpacked; `make repro`", "runs to its report, without a commit")
def test_30_an_unpacked_archive(tmp_path: Path) -> None:
    archive = subprocess.run(["git", "archive", "--format=zip", "HEAD"], cwd=ROOT, capture_output=True)
    if archive.returncode:
        pytest.skip("these tests do not run in a git repository themselves: nothing to pack")
    (tmp_path / "study.zip").write_bytes(archive.stdout)
    folder = tmp_path / "study"
    with zipfile.ZipFile(tmp_path / "study.zip") as packed:
        packed.extractall(folder)
    (folder / ".venv").symlink_to(sys.prefix)  # as `make setup` would make it, and old enough to be left alone
    edit(folder, shrink)
    said = shell(folder, "make", "--assume-old=.venv/installed", "repro")
    assert "2 of 2 cells" in said
    assert json.loads((folder / "reports/summary.json").read_text())["digits"]["mart"]["n"] == 50
    provenance = json.loads((folder / "reports/records/digits/mart/0/provenance.json").read_text())
    assert provenance["commit"] is provenance["dirty"] is None
    times = json.loads((folder / "reports/times/digits/mart/0.json").read_text())
    assert times["seconds"].keys() == {"training", "evaluation"}
    assert re.fullmatch("[0-9a-f]{32}", provenance["fingerprint"])
    assert "all whole; checked: " in shell(folder, "make", "--assume-old=.venv/installed", "verify")


@pytest.mark.fault(3, "dvc.lock and DVC's own lock cut short, as by a kill; `make repro`", "told, moved, nothing lost")
def test_03_files_of_dvc_that_are_cut_short(finished: Path, tmp_path: Path) -> None:
    folder = copy(finished, tmp_path / "study")
    lock = (folder / "dvc.lock").read_bytes()
    for name, content in (
        ("dvc.lock", b""),
        ("dvc.lock", lock[: len(lock) // 2 - 7] + b"\n  - :"),
        (".dvc/tmp/rwlock", b"{"),
    ):
        (folder / name).write_bytes(content)
        said = shell(folder, sys.executable, "-m", "stages.repro")
        assert f"{name}: cut short by a kill; moved to" in said
        assert "training digits" not in said  # DVC's cache has it
        assert (folder / "reports/summary.json").read_bytes() == (finished / "reports/summary.json").read_bytes()
        assert read_yaml(folder / "dvc.lock") == read_yaml(finished / "dvc.lock")


# ------------------------------------------------------------------------- fault 31: other thread or worker counts


@pytest.mark.fault(31, "a cell trained and evaluated with 4 threads instead of 1", "threads recorded, equal measures")
def test_31_other_thread_counts(finished: Path, tmp_path: Path) -> None:
    folder = copy(finished, tmp_path / "study")
    for name in ("finetune", "evaluate"):
        stage(folder, name, *CELL, OMP_NUM_THREADS="4")
    cell = Path("reports/records/digits/mart/0")
    one, four = (json.loads((root / cell / "provenance.json").read_text()) for root in (finished, folder))
    assert (one["threads"], four["threads"]) == (1, 4)
    before, after = (json.loads((root / cell / "record.json").read_text()) for root in (finished, folder))
    curves = [record["best"].pop("calibration") for record in (before, after)]
    assert before["best"] == after["best"]
    for name, values in curves[0].items():  # mean confidences, whose last digit hangs on the order of a sum
        assert curves[1][name] == pytest.approx(values, abs=2e-5), name


@pytest.mark.fault(31, "augmentation and random starts drawn with 1 and with 4 threads", "the same bytes")
def test_31_draws_hang_on_their_key_alone() -> None:
    code = """
import os, torch
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
from turncoat import models
from turncoat.attacks import Threat
from turncoat.data.batches import DeviceSplit, batches
from turncoat.randomness import generator
split = DeviceSplit(torch.arange(3 * 64 * 64 * 40, dtype=torch.uint8).view(40, 3, 64, 64), torch.arange(40) % 10)
drawn = {f"batch{i}": b.images for i, b in enumerate(batches(split, 8, 4, True, 0, 3))}
drawn["start"] = Threat("linf", 0.1).random_start(drawn["batch0"], generator(0, "attack", 5))
print(torch.get_num_threads(), models.tensor_digest(drawn))
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=ENVIRONMENT | {"OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for threads in ("1", "4")
    ]
    assert [threads for threads, _ in said] == ["1", "4"]
    assert said[0][1] == said[1][1]
