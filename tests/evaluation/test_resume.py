"""Finished batches are kept: a torn or damaged journal, and a real evaluation killed in the middle."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from turncoat import data, models
from turncoat.attacks import Threat, pgd
from turncoat.data.prepare import prepare
from turncoat.errors import TurncoatError
from turncoat.evaluation import evaluate, plan_suite
from turncoat.evaluation.__main__ import main as command_line
from turncoat.evaluation.journal import Journal, packed, unpacked
from turncoat.evaluation.perturbed import load_examples, load_perturbed, load_predictions, save_perturbed
from turncoat.files import sha256, write_json
from turncoat.settings import DataSettings

ROOT = Path(__file__).parents[2]


@given(st.lists(st.booleans(), max_size=70))
def test_packing_loses_nothing(values: list[bool]) -> None:
    array = np.array(values, bool)
    assert unpacked(packed(array), len(array)).tolist() == values


def test_a_finished_piece_is_not_done_again(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal")
    assert first.once("a", lambda: {"x": 0.1}) == {"x": 0.1}
    assert first.once("a", lambda: pytest.fail("done again")) == {"x": 0.1}
    again = Journal(tmp_path / "journal")
    assert len(again) == 1
    assert again.once("a", lambda: pytest.fail("done again")) == {"x": 0.1}
    assert again.once("b", lambda: 2) == 2


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:-9], lambda b: b.replace(b'"b"', b'"c"'), lambda b: b + b"\xff\n"]
)
def test_a_torn_or_damaged_line_is_dropped(tmp_path: Path, damage) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.once("a", lambda: 1)
    whole = path.read_bytes()
    journal.once("b", lambda: 2)
    path.write_bytes(damage(path.read_bytes()))
    again = Journal(path)
    assert again.once("a", lambda: pytest.fail("lost")) == 1
    assert again.once("b", lambda: 3) in (2, 3)
    assert Journal(path).once("b", lambda: pytest.fail("not written")) in (2, 3)
    assert path.read_bytes().startswith(whole)


def test_an_evaluation_resumes_after_each_piece(
    tmp_path: Path, network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    suite = {
        "fgsm": {"attack": "fgsm"},
        "margin": {"attack": "pgd", "steps": 20, "loss": "margin"},
        "pgd": {"attack": "pgd", "steps": 20},
        "square": {"attack": "square", "queries": 5},
    }
    path, gentle = tmp_path / "journal", Threat("linf", 0.05)

    def run() -> str:
        result = evaluate(
            network, images[:60], labels[:60], gentle, plan_suite("s", suite, batch_size=25), journal=Journal(path)
        )
        rights = {name: right.tolist() for name, right in result.correct.items()}
        return json.dumps([rights, result.passes, result.overhead, [vars(flag) for flag in result.flags]])

    whole = run()
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) > 5
    for kept in range(len(lines)):
        path.write_bytes(b"".join(lines[:kept]))
        assert run() == whole
        assert path.read_bytes().splitlines(keepends=True) == lines


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder with one trained cell, by hand: all that the evaluate stage reads."""
    root = tmp_path_factory.mktemp("study")
    settings = {"source": "digits", "train": 60, "validation": 60, "test": 90, "split_seed": 0}
    digits = prepare("digits", DataSettings(**settings), root)
    data.save(digits, root / "data" / "digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.Classifier("small_cnn", 10, digits.shape, digits.mean, digits.std)
    images = torch.tensor(np.asarray(digits.train.images)).float() / 255
    labels = torch.tensor(np.asarray(digits.train.labels))
    adam = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(25):
        adam.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        adam.step()
    network.eval()
    folder = root / "models/digits/standard/0"
    folder.mkdir(parents=True)
    for name in ("best", "last"):
        models.save(folder / f"{name}.safetensors", network)
    training = {
        "cell": {"dataset": "digits", "arm": "standard", "seed": 0},
        "fingerprint": "f" * 32,
        "settings": {"arm": {"method": "standard"}, "dataset": {}, "compute": {}},
        "validation": {},
        "best_epoch": 1,
        "cost": {"images": 60, "forward": 1.0, "backward": 1.0},
        "parameters": 1,
        "weights": {name: sha256(folder / f"{name}.safetensors") for name in ("best", "last")},
    }
    write_json(folder / "training.json", training)
    test = torch.tensor(np.asarray(digits.test.images)).float() / 255
    save_perturbed(root / "data/perturbed/digits/0", {"same": test}, network(test).argmax(1), {}, {})
    write_json(
        root / "params.yaml",  # JSON is YAML
        {
            "study": {"datasets": ["digits"], "arms": ["standard"], "seeds": [0], "suite": "s"},
            "arms": {"standard": {"method": "standard"}},
            "datasets": {
                "digits": {
                    "data": settings,
                    "threat": {"norm": "linf", "epsilon": 0.05},
                    "model": "small_cnn",
                    "training": {"epochs": 1, "lr": 0.1},
                    "finetuning": {"epochs": 1, "lr": 0.1},
                }
            },
            "perturbations": {"same": {"attack": "fgsm"}},
            "suites": {
                "s": {
                    "batch_size": 15,
                    "attacks": {
                        "fgsm": {"attack": "fgsm"},
                        "pgd-20": {"attack": "pgd", "steps": 20},
                        "apgd-t": {"attack": "apgd-t", "steps": 20},
                        "margin": {"attack": "pgd", "steps": 20, "loss": "margin"},
                        "transfer": {"attack": "transfer", "stored": "same"},
                    },
                    "radii": [0.5, 1.0, 2.0],
                    "shifts": ["blur"],
                    "audit": 8,
                }
            },
        },
    )
    return root


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TURNCOAT_TRACKING": "off"}


STAGE = [sys.executable, "-m", "stages.evaluate", "--dataset", "digits", "--arm", "standard", "--seed", "0"]


@pytest.mark.slow
@pytest.mark.fault(
    1,
    "an evaluation killed twice in the middle of its attacks",
    "record and per-example file to the byte",
)
def test_killed_evaluations_end_in_the_same_record(cell: Path) -> None:
    def run() -> str:
        done = subprocess.run(STAGE, cwd=cell, env=environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def killed_after(pieces: int) -> None:
        process = subprocess.Popen(STAGE, cwd=cell, env=environment(), stdout=subprocess.DEVNULL)
        until = time.monotonic() + 300
        while time.monotonic() < until and process.poll() is None:
            journals = list((cell / ".scratch").glob("*/journal"))
            if journals and journals[0].read_bytes().count(b"\n") >= pieces:
                break
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    assert "going on" not in run()
    folder = cell / "reports/records/digits/standard/0"
    undisturbed = {name: (folder / name).read_bytes() for name in ("record.json", "examples.npz")}
    for path in folder.iterdir():
        path.unlink()
    killed_after(3)
    killed_after(9)
    assert not any(folder.iterdir())
    assert "going on after" in run()
    assert {name: (folder / name).read_bytes() for name in undisturbed} == undisturbed
    assert not list((cell / ".scratch").glob("*/journal"))  # done and cleared

    record = json.loads(undisturbed["record.json"])
    assert record["cell"] == {"dataset": "digits", "arm": "standard", "seed": 0}
    assert record["best"]["clean"] == record["last"]["clean"]
    assert record["best"]["attacks"]["transfer"]["correct"] == record["best"]["clean"]["correct"]
    with np.load(folder / "examples.npz") as arrays:
        worst = np.logical_and.reduce([arrays["clean"], *(arrays[name] for name in record["best"]["worst"]["attacks"])])
    assert int(worst.sum()) == record["best"]["worst"]["correct"]


@pytest.mark.slow
def test_alone_a_weights_file_gives_the_numbers_of_the_stage(cell: Path) -> None:
    weights = "models/digits/standard/0/best.safetensors"
    command = [sys.executable, "-m", "turncoat.evaluation", "--model", weights, "--dataset", "digits"]
    command += ["--suite", "s", "--json", "found.json"]
    done = subprocess.run(command, cwd=cell, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    subprocess.run(STAGE, cwd=cell, env=environment(), check=True, capture_output=True)
    record = json.loads((cell / "reports/records/digits/standard/0/record.json").read_text())
    found = json.loads((cell / "found.json").read_text())
    for part in ("clean", "attacks", "worst", "curve", "calibration", "per_class", "shifts"):
        assert found[part] == record["best"][part]
    assert found["flags"] == record["flags"]
    assert f"{'worst case':<20}" in done.stdout


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--suite", "t"], "--suite: 't' is not defined; there are s"),
        (["--suite", "s", "--epsilon", "2"], "epsilon must lie in (0, 1] for linf"),
        (["--suite", "s", "--epsilon", "510/255"], "epsilon must lie in (0, 1] for linf"),
        (["--suite", "s", "--epsilon", "8/0"], "epsilon"),
        (["--suite", "s", "--norm", "l2"], "give --epsilon too"),
        (["--suite", "s", "--images", "0"], "--images: at least 1 wanted"),
        (["--suite", "s", "--model", "none.safetensors"], "no such weights file"),
    ],
)
def test_alone_it_refuses_in_one_line(
    more: list[str], says: str, cell: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = "models/digits/standard/0/best.safetensors"
    monkeypatch.chdir(cell)
    monkeypatch.setattr(sys, "argv", ["evaluation", "--model", weights, "--dataset", "digits", *more])
    with pytest.raises(SystemExit) as refused:
        command_line()
    assert refused.value.code == 2
    assert says in capsys.readouterr().err


def test_alone_it_starts_anew_when_the_stored_images_are_others(
    cell: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> int:
        """The images that stand against the stored ones, of a run that is killed before it clears its journal."""
        monkeypatch.setattr("turncoat.training.Scratch.clear", lambda scratch: None)
        weights = "models/digits/standard/0/best.safetensors"
        command = ["--model", weights, "--dataset", "digits", "--suite", "s", "--json", "found.json"]
        monkeypatch.setattr(sys, "argv", ["evaluation", *command])
        command_line()
        return int(json.loads(Path("found.json").read_text())["attacks"]["transfer"]["correct"])

    monkeypatch.chdir(cell)
    folder = Path("data/perturbed/digits/0")
    kept = {path: path.read_bytes() for path in [Path("params.yaml"), *folder.iterdir()]}
    params = json.loads(kept[Path("params.yaml")])
    params["suites"]["s"] |= {
        "attacks": {"transfer": {"attack": "transfer", "stored": "same"}},
        "radii": [],
        "audit": 0,
    }
    try:
        write_json(Path("params.yaml"), params)
        before = run()
        stored, labels = load_perturbed(folder), torch.from_numpy(load_predictions(folder))
        network = models.load("models/digits/standard/0/best.safetensors").eval()
        moved = {
            name: pgd(network, images, labels, Threat("linf", 0.05), steps=10, start="none")
            for name, images in stored.items()
        }
        save_perturbed(folder, moved, labels, {"x": np.zeros(3)}, {"n": len(labels)})
        assert run() < before
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
        shutil.rmtree(".scratch", ignore_errors=True)


def test_perturbed_images_are_believed_only_with_their_checksum(tmp_path: Path, images: Tensor, labels: Tensor) -> None:
    save_perturbed(tmp_path, {"a": images}, labels, {"x": np.zeros(3)}, {"n": 200})
    assert torch.equal(load_perturbed(tmp_path)["a"], images)
    assert (load_predictions(tmp_path) == labels.numpy()).all()
    for name, reads in (
        ("a.npy", load_perturbed),
        ("predictions.npy", load_predictions),
        ("examples.npz", load_examples),
    ):
        content = bytearray((tmp_path / name).read_bytes())
        content[-1] ^= 1
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TurncoatError, match="missing or damaged"):
            reads(tmp_path)
