"""Faults 4, 17, 22, 25 and 28: flipped bytes in a finished study, a damaged cache, a full disk, no memory."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.faults.study import ENVIRONMENT, ROOT, copy, edit, shell, stage
from turncoat.data import Split, save
from turncoat.data.prepare import assemble
from turncoat.errors import TurncoatError
from turncoat.evaluation.journal import Journal
from turncoat.files import write_atomic
from turncoat.training import Checkpoint

CELL = ("--dataset", "digits", "--arm", "mart", "--seed", "0")
WEIGHTS = Path("models/digits/mart/0/best.safetensors")
RECORD = Path("reports/records/digits/mart/0")


def flip(path: Path) -> None:
    """Turn one bit in the middle of a file; DVC keeps its objects read-only."""
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# ------------------------------------------------------------------------------------------ faults 4 and 22: damage


@pytest.mark.slow
@pytest.mark.fault(4, "one bit in weights, arrays, records of a finished study", "`make verify` names each, exit 2")
def test_04_verify_names_every_damaged_file(finished: Path, tmp_path: Path) -> None:
    folder = copy(finished, tmp_path / "study")
    whole = stage(folder, "verify")
    assert "all whole; checked: " in whole
    for kind in ("arrays", "weights", "records", "DVC objects"):
        assert kind in whole
    damaged = [
        WEIGHTS,
        RECORD / "examples.npz",
        Path("data/digits/test_images.npy"),
        Path("data/perturbed/digits/0/predictions.npy"),
        Path("data/perturbed/digits/0/examples.npz"),
        Path("reports/records/digits/standard/0/record.json"),
    ]
    for path in damaged:
        flip(folder / path)
    (folder / "models/digits/standard/0/last.safetensors").unlink()
    *faults, last = stage(folder, "verify", ok=False).splitlines()
    named = {line.partition(": ")[0] for line in faults}
    assert named == {str(path) for path in damaged} | {"models/digits/standard/0/last.safetensors"}
    assert all("delete" in line and "`dvc repro`" in line for line in faults)
    assert last.startswith("7 faults; checked: ")

    for line in faults:  # the remedy, word for word
        shutil.rmtree(folder / line.split("delete ")[1].split(" and run")[0], ignore_errors=True)
    shell(folder, "dvc", "repro")
    assert "all whole" in stage(folder, "verify")


@pytest.mark.slow
@pytest.mark.fault(22, "a bit turned in an object of DVC's cache, then checked out", "the stage stops; verify names it")
def test_22_a_damaged_cache(finished: Path, tmp_path: Path) -> None:
    folder = copy(finished, tmp_path / "study")
    weights = (folder / WEIGHTS).read_bytes()
    [cached] = [path for path in (folder / ".dvc/cache/files/md5").glob("*/*") if path.read_bytes() == weights]
    flip(cached)
    shutil.rmtree(folder / "models/digits/mart")
    shell(folder, "dvc", "checkout")
    assert (folder / WEIGHTS).read_bytes() != weights, "DVC has noticed: then this test is of no use any more"
    said = stage(folder, "evaluate", *CELL, ok=False)
    assert "the weights are not those that training.json describes; run `dvc repro`" in said
    said = stage(folder, "verify", ok=False)
    assert f"{cached.relative_to(folder)}: DVC's cached copy is damaged; delete it" in said.replace(f"{folder}/", "")
    assert str(WEIGHTS) in said

    cached.unlink()  # the remedy
    shutil.rmtree(folder / "models/digits/mart/0")
    shell(folder, "dvc", "repro")
    assert (folder / WEIGHTS).read_bytes() == weights
    assert "all whole" in stage(folder, "verify")


# --------------------------------------------------------------------------------------------- fault 17: undefined


@pytest.mark.slow
@pytest.mark.fault(17, "study.arms names what is not defined, through `dvc repro`", "stops, lists what there is")
def test_17_an_arm_that_is_not_there(finished: Path, tmp_path: Path) -> None:
    folder = copy(finished, tmp_path / "study")
    edit(folder, lambda params: params["study"].update(arms=["standard", "trade"]))
    for command in (("dvc", "repro"), (sys.executable, "-m", "stages.repro")):
        said = shell(folder, *command, ok=False)
        assert "trade" in said
    assert "trade is not defined; did you mean trades" in said


# -------------------------------------------------------------------------------------------- fault 25: full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root's rights")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


FULL = r"could not be written \(No space left on device\): \d+ bytes needed, \d+ free"


@pytest.mark.fault(25, "a checkpoint of 400 kB on a real file system of 256 KiB", "the one before loads, bytes named")
def test_25_a_checkpoint_that_does_not_fit(small_disk: Path) -> None:
    checkpoint = Checkpoint(small_disk)
    checkpoint.save({"x": torch.zeros(10_000)}, 1)
    with pytest.raises(TurncoatError, match=FULL):
        checkpoint.save({"x": torch.ones(100_000)}, 2)
    assert torch.equal(Checkpoint(small_disk).load()["x"], torch.zeros(10_000))
    assert [path.name for path in small_disk.iterdir()] == ["checkpoint-1.pt"], "no part of the second is left"


@pytest.mark.fault(25, "an evaluation's journal fills the disk", "finished pieces stay, bytes named")
def test_25_a_journal_that_does_not_fit(small_disk: Path) -> None:
    journal = Journal(small_disk / "journal")

    def fill() -> None:
        for number in range(100):
            journal.once(f"piece {number}", lambda: "0" * 9_000)

    with pytest.raises(TurncoatError, match=FULL):
        fill()
    kept = len(journal)
    assert 20 < kept < 30
    again = Journal(small_disk / "journal")
    assert len(again) == kept
    assert again.once("piece 0", lambda: pytest.fail("lost")) == "0" * 9_000


@pytest.mark.fault(25, "a file, and a folder, on a disk that is full to the last byte", "old files whole, bytes named")
def test_25_not_a_byte_left(small_disk: Path) -> None:
    write_atomic(small_disk / "old", "old")
    with contextlib.suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    for path in (small_disk / "old", small_disk / "new/deep/file"):
        with pytest.raises(TurncoatError, match=FULL):
            write_atomic(path, "new" * 10_000)
    assert (small_disk / "old").read_text() == "old"
    assert not list(small_disk.rglob("*.tmp"))


@pytest.mark.fault(25, "a data set that does not fit beside the old one", "the old one whole, bytes named")
def test_25_a_data_set_that_does_not_fit(small_disk: Path) -> None:
    def toy(size: int) -> object:
        rng = np.random.default_rng(size)
        parts = [Split(rng.integers(0, 256, (6, 1, size, size), dtype=np.uint8), np.arange(6) % 2) for _ in range(3)]
        return assemble("toy", "mnist", ("a", "b"), (parts[0], parts[1], parts[2]), {})

    save(toy(4), small_disk / "toy")
    before = {path.name: path.read_bytes() for path in (small_disk / "toy").iterdir()}
    with pytest.raises(TurncoatError, match=r"the disk is full; [\d,]+ bytes needed, [\d,]+ free"):
        save(toy(200), small_disk / "toy")
    assert {path.name: path.read_bytes() for path in (small_disk / "toy").iterdir()} == before
    assert [path.name for path in small_disk.iterdir()] == ["toy"]


@pytest.mark.slow
@pytest.mark.fault(25, "the weights of a stage go to a disk that is full", "exit 2, one message, nothing half-written")
def test_25_a_stage_on_a_full_disk(finished: Path, tmp_path: Path, small_disk: Path) -> None:
    folder = copy(finished, tmp_path / "study")
    shutil.rmtree(folder / "models/digits/mart/0")
    (folder / "models/digits/mart/0").symlink_to(small_disk)
    (small_disk / "filler").write_bytes(bytes(200 * 1024))
    said = stage(folder, "finetune", *CELL, ok=False)
    assert "best.safetensors: could not be written (No space left on device): " in said
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


# --------------------------------------------------------------------------------------- fault 28: GPU and memory


def out_of_memory(code: str) -> str:
    code = f"import torch\nfrom stages.common import run\nrun(lambda: {code})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.fault(28, "a stage that asks the machine for 4 PB", "exit 2, one line, names batch_size")
def test_28_out_of_memory() -> None:
    for code in ("torch.empty(10**15)", "bytearray(10**15)"):
        said = out_of_memory(code)
        assert said.startswith("out of memory: ")
        assert "nothing was made smaller: in params.yaml, lower batch_size" in said


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.fault(28, "a stage that asks the GPU for 4 TB", "exit 2, one line, names batch_size")
def test_28_out_of_gpu_memory() -> None:
    said = out_of_memory("torch.empty(10**12, device='cuda')")
    assert "CUDA out of memory" in said
    assert "lower batch_size" in said


@pytest.mark.slow
@pytest.mark.fault(28, "a training where there is no GPU", "says that it is on the cpu")
def test_28_the_device_is_said(finished: Path, tmp_path: Path) -> None:
    folder = copy(finished, tmp_path / "study")
    said = stage(folder, "finetune", *CELL, CUDA_VISIBLE_DEVICES="")
    assert "digits/mart/0: mart on cpu, float32, 1 epochs" in said
