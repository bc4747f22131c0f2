"""A cell in two processes is the cell in one: weights up to rounding, an evaluation to the byte."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.faults.study import ENVIRONMENT, lay, shrink
from tests.training.ranks import ARMS, attacked, everything
from turncoat.errors import TurncoatError
from turncoat.settings import ComputeSettings
from turncoat.training import parallel

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two ranks come to: of each its tensors, and its evaluation."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.training.ranks", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return [(torch.load(folder / f"{rank}.pt"), (folder / f"{rank}.json").read_bytes()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def one():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield everything(), attacked()
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", [*ARMS, "exact"])
def test_two_ranks_train_what_one_process_trains(one, two, name):
    (first, _), (second, _) = two
    alone = one[0][name]
    assert first[name].keys() == alone.keys()
    for key, value in alone.items():
        assert torch.equal(first[name][key], second[name][key]), f"{key}: the ranks differ"
        if key.startswith("passes"):
            assert torch.equal(value, first[name][key]), key
        # rows are rounded to 1e-6 when they are logged
        within = 1e-10 if name == "exact" and key.startswith("weights") else 1e-5
        torch.testing.assert_close(
            first[name][key], value, rtol=0, atol=within, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_two_ranks_find_what_one_process_finds_to_the_byte(one, two):
    assert two[0][1] == two[1][1] == one[1]


def test_gpus_that_are_not_there_and_compiling_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TurncoatError, match=r"compute\.processes: 2 of them want as many GPUs; there are 1"):
        parallel.launch(ComputeSettings(device="cuda", processes=2))
    with pytest.raises(TurncoatError, match=r"compute\.compile: true does not go with compute\.processes"):
        parallel.launch(ComputeSettings(device="cpu", processes=2, compile=True))


def test_a_method_whose_loss_is_not_that_of_its_shards_stays_in_one_process(capsys):
    parallel.launch(ComputeSettings(device="cpu", processes=2), alone="reverse: in one process")
    assert capsys.readouterr().out == "reverse: in one process\n"
    assert parallel.size() == 1


def test_stages_of_two_processes_make_the_same_files(tmp_path):
    """Weights up to rounding; of the same weights the same record and outcomes, to the byte."""

    def plan(params, processes):
        shrink(params)
        params["study"]["arms"] = ["pgd"]
        params["compute"] = {"device": "cpu", "processes": processes}
        params["suites"]["tiny"]["batch_size"] = 10

    def run(folder, *names):
        for name in names:
            stage, *more = name.split()
            if stage not in ("inputs", "download"):
                more += ["--dataset", "digits", "--seed", "0"]
            command = [sys.executable, "-m", f"stages.{stage}", *more]
            done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr

    folders = []
    for processes in (1, 2):
        folder = lay(tmp_path / str(processes), lambda params, count=processes: plan(params, count))
        run(folder, "inputs", "download --dataset digits", "baseline", "perturb", "finetune --arm pgd")
        folders.append(folder)
    one, two = folders
    weights = [load_file(folder / "models/digits/pgd/0/last.safetensors") for folder in folders]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=0, atol=1e-4)
    for name in ("models", "data/perturbed"):
        shutil.rmtree(two / name)
        shutil.copytree(one / name, two / name)
    for folder in folders:
        run(folder, "evaluate --arm pgd")
    for name in ("record.json", "examples.npz"):
        cell = Path("reports/records/digits/pgd/0", name)
        assert (one / cell).read_bytes() == (two / cell).read_bytes()
