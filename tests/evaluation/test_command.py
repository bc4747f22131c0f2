"""python -m turncoat.evaluation on networks and images that no study made."""

import hashlib
import json
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.defaults import DEFAULTS
from tests.evaluation.conftest import digits
from turncoat.errors import TurncoatError
from turncoat.evaluation.__main__ import ALONE, main
from turncoat.files import sha256
from turncoat.models.given import find
from turncoat.reporting.record import Record
from turncoat.settings import load

ROOT = Path(__file__).parents[2]
PARAMS = """
study: {datasets: [cifar10], arms: [frozen], seeds: [0], suite: s}
arms: {}
perturbations: {fgsm: {attack: fgsm}, pgd-20: {attack: pgd, steps: 20}}
suites:
  s: {images: 60, attacks: {pgd: {attack: pgd, steps: 10}, square: {attack: square, queries: 50}}, audit: 0}
"""
DIGITS = """
datasets:
  digits:
    data: {source: digits, train: 400, validation: 400, test: 997}
    threat: {norm: linf, epsilon: 0.15}
    model: small_cnn
    training: {epochs: 1, lr: 0.1}
    finetuning: {epochs: 1, lr: 0.1}
"""
FACTORY = """
from torch import nn
def build(width=64):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
"""


@pytest.fixture
def folder(tmp_path: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stranger's folder: a network in a file, its weights, images in an archive; no params.yaml of a study."""
    images, labels = digits()
    pixels = (images * 255).round().to(torch.uint8).numpy()[:, 0]
    np.savez(tmp_path / "set.npz", images=pixels[:200], labels=labels[:200].numpy())
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}, tmp_path / "w.pth"
    )
    (tmp_path / "net.py").write_text(FACTORY)
    (tmp_path / "s.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluation", *words])
    main()


MINE = ("--model", "net.py:build", "--weights", "w.pth", "--normalisation", "none", "--model-args", "width=64")
ON = ("--data", "set.npz", "--epsilon", "0.15", "--params", "s.yaml", "--suite", "s")


def test_a_network_of_ones_own_on_images_of_ones_own(
    folder: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--json", "f.json", "--robustbench", "rb.json", "--save", "adv.npz", "--batch-size", "25")
    command(monkeypatch, *MINE, *ON, *files)
    assert "worst case" in capsys.readouterr().out
    found, info = (json.loads((folder / name).read_text()) for name in ("f.json", "rb.json"))
    assert found["model"]["weights"] == "w.pth"
    assert found["clean"]["n"] == 60
    assert info["clean_acc"] == f"{100 * found['clean']['correct'] / 60:.2f}"
    assert info["autoattack_acc"] is None
    kept = np.load(folder / "adv.npz", allow_pickle=False)
    assert len(kept["index"]) == found["clean"]["correct"] - found["worst"]["correct"] > 0
    assert (network(torch.from_numpy(kept["images"])).argmax(1).numpy() != kept["label"]).all()
    assert {name for name in kept["attack"].tolist() if not name.startswith("second-look-")} <= {"pgd", "square"}


@pytest.mark.parametrize(
    ("sets", "said", "number_met"),
    [
        ({"train": 0, "test": 3}, "60 test images of 60", 3),
        ({"train": 0, "val": 3}, "60 validation images, for there is no test set, of 60", 3),
        ({"train": 0, "val": 1, "test": 3}, "60 test images of 60", 3),
    ],
)
def test_the_set_that_a_network_was_trained_by_is_not_attacked(
    sets: dict[str, int],
    said: str,
    number_met: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each set has images of its own brightness, which tells the set that was met."""
    arrays = {f"x_{name}": np.full((60, 8, 8), 80 * number, np.uint8) for name, number in sets.items()}
    arrays |= {f"y_{name}": np.arange(60) % 10 for name in sets}
    np.savez(folder / "sets.npz", **arrays)
    met: list[float] = []

    def evaluated(network: nn.Module, images: Tensor, *_: object, **__: object) -> None:
        met.extend(images.unique().tolist())
        raise TurncoatError("enough is known")

    monkeypatch.setattr("turncoat.evaluation.evaluate", evaluated)
    with pytest.raises(SystemExit):
        command(monkeypatch, *MINE, *ON, "--data", "sets.npz")
    assert said in capsys.readouterr().out
    assert met == pytest.approx([80 * number_met / 255])


def test_what_was_done_to_the_images_is_said_before_they_are_attacked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("a", "b")):
        (folder / "dark" / name).mkdir(parents=True)
        for index in range(3):
            pixels = np.full((8, 8), 50 + 10 * number + index, np.uint16)
            Image.fromarray(pixels).save(folder / "dark" / name / f"{index}.png")

    def evaluated(*_: object, **__: object) -> None:
        raise TurncoatError("not reached before")

    monkeypatch.setattr("turncoat.evaluation.evaluate", evaluated)
    with pytest.raises(SystemExit):
        command(monkeypatch, *MINE, *ON, "--data", "dark", "--classes", "10")
    said = capsys.readouterr().out
    assert "6 images, for none are set apart as a test set, of 6, 2 classes (a, b)" in said
    assert "6 16-bit with no value over 62 of 65,535, so almost black" in said


@pytest.mark.parametrize("path", ["my nets (1)/net+a@b.py", "~/net.py"])
def test_a_factorys_file_may_lie_anywhere(path: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    place = Path(path).expanduser()
    place.parent.mkdir(parents=True)
    place.write_text(FACTORY)
    command(monkeypatch, *MINE, *ON, "--model", f"{path}:build", "--images", "4", "--json", "f.json")
    assert json.loads((folder / "f.json").read_text())["clean"]["n"] == 4


class Killed(BaseException):
    """What no handler of errors takes: the process ends."""


def test_what_was_measured_is_on_the_disk_before_it_is_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    files = ("--json", "f.json", "--robustbench", "rb.json", "--save", "adv.npz")
    with monkeypatch.context() as patch:
        patch.setattr("turncoat.evaluation.flags.check", killed)
        with pytest.raises(Killed):
            command(patch, *MINE, *ON, *files)
    found, info = (json.loads((folder / name).read_text()) for name in ("f.json", "rb.json"))
    assert [(flag["name"], flag["blocks"]) for flag in found["flags"]] == [("unchecked", True)]
    assert info["unreliable"]
    first = len(np.load(folder / "adv.npz", allow_pickle=False)["index"])
    assert first == found["clean"]["correct"] - found["worst"]["correct"] > 0

    monkeypatch.setattr("turncoat.evaluation.runner.call", lambda *_, **__: pytest.fail("attacked anew"))
    monkeypatch.setattr("turncoat.evaluation.flags.check", lambda _: [])
    monkeypatch.setattr("turncoat.evaluation.probes.on_a_linear_classifier", lambda *_: None)
    command(monkeypatch, *MINE, *ON, *files)
    again = json.loads((folder / "f.json").read_text())
    assert again == found | {"flags": []}


def test_a_record_is_of_a_named_data_set_in_a_folder_with_a_plain_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").write_text("")
    for name, says in (
        ("records/theirs", "must be a name under `datasets`"),
        ("records/Theirs", "small letters"),
        ("file", "a folder is wanted"),
    ):
        with pytest.raises(SystemExit):
            command(monkeypatch, *MINE, *ON, "--record", name)
        assert says in capsys.readouterr().err


def test_a_record_says_what_was_run_as_the_report_compares_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, network: nn.Module
) -> None:
    (folder / "s.yaml").write_text(PARAMS + DIGITS)
    named = ("--data", "digits", "--params", "s.yaml", "--suite", "s", "--images", "40")
    command(monkeypatch, *MINE, *named, "--record", "records/theirs", "--robustbench", "rb.json")
    record = Record.model_validate(json.loads((folder / "records/theirs/record.json").read_text()))
    assert (record.cell.dataset, record.cell.arm, record.cell.seed) == ("digits", "theirs", 0)
    plan = load("s.yaml").suites["s"].model_dump() | {"images": 40}
    assert record.settings["suite"] == {"name": "s", **plan}
    assert record.settings["dataset"] == {"threat": {"norm": "linf", "epsilon": 0.15}}
    assert record.settings["arm"]["sha256"] == sha256(folder / "w.pth")
    assert record.command is not None
    assert record.command.startswith("python -m turncoat.evaluation --model net.py:build")
    assert record.best.clean.n == 40
    assert record.cost.parameters == sum(value.numel() for value in network.parameters())
    examples = np.load(folder / "records/theirs/examples.npz")
    assert record.best.worst is not None
    assert int(examples["worst"].sum()) == record.best.worst.correct
    assert sha256(folder / "records/theirs/examples.npz") == record.examples["sha256"]
    assert (folder / "records/theirs/provenance.json").is_file()


def test_a_black_box_and_what_it_leaves_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, *MINE, *ON, "--black-box", "--json", "f.json")
    assert list(json.loads((folder / "f.json").read_text())["attacks"]) == ["square"]
    assert "DO NOT BELIEVE: black-box" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*MINE, *ON, "--suite", "q"), "--suite: 'q' is not defined"),
        ((*MINE, "--data", "set.npz"), "--epsilon: wanted for images of your own"),
        ((*MINE,), "--data: wanted"),
        ((*MINE, *ON, "--data", "none"), "none: no such file or folder"),
        ((*MINE, *ON, "--weights", "no.pth"), "weights no.pth: no such file"),
        ((*MINE, *ON, "--model", "nett.py:build"), "nett.py: no such file"),
        ((*MINE, *ON, "--model", "~nobody-here/net.py:build"), "~nobody-here/net.py: "),
        ((*MINE, *ON, "--model", "net.py:bild"), "net.py has no function or class bild"),
        ((*MINE, *ON, "--model-args", "width"), "--model-args: name=value wanted"),
        ((*MINE, *ON, "--model-args", "width=3"), "the weights do not fit the network"),
        ((*MINE, *ON, "--normalisation", "0.5"), "--normalisation: data, library, none, or means"),
        ((*MINE[:4], *ON), "--normalisation is missing"),
        (("--model", "resnet20", *ON), "--weights: wanted: resnet20 has none"),
        (("--model", "resnet21", *ON), "no such weights file and no network of this name"),
        (("--model", "robustbench:Standard", *ON), "pip install robustbench"),
        ((*MINE, *ON, "--batch-size", "0"), "--batch-size: at least 1"),
        ((*MINE, *ON, "--save", "no/adv.npz"), "make it first"),
        ((*MINE, *ON, "--save", "f", "--json", "./f"), "named for two results"),
        ((*MINE, *ON, "--normalisation", "0/-1"), "--normalisation: std.0: Input should be greater than 0"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(
    words: tuple[str, ...],
    says: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("turncoat.evaluation.runner.call", lambda *_, **__: pytest.fail("an attack was run"))
    monkeypatch.setitem(sys.modules, "robustbench", None)
    with pytest.raises(SystemExit) as refused:
        command(monkeypatch, *words)
    assert refused.value.code == 2
    said = capsys.readouterr().err.strip()
    assert says in said
    assert "\n" not in said


def test_robustbench_is_asked_for_its_network(
    folder: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load_model(**words: str) -> nn.Module:
        asked.append(words)
        return network

    stub = types.ModuleType("robustbench.utils")
    stub.load_model = load_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "robustbench", types.ModuleType("robustbench"))
    monkeypatch.setitem(sys.modules, "robustbench.utils", stub)
    command(monkeypatch, "--model", "robustbench:Carmon2019Unlabeled", *ON, "--json", "f.json")
    assert asked == [{"model_name": "Carmon2019Unlabeled", "dataset": "set", "threat_model": "Linf"}]
    assert json.loads((folder / "f.json").read_text())["model"] == {"name": "robustbench:Carmon2019Unlabeled"}


def test_what_stands_in_for_params_yaml_has_its_suites_and_perturbations() -> None:
    alone, whole = load(ALONE), load(DEFAULTS)
    assert alone.suites == whole.suites
    assert alone.perturbations == whole.perturbations


def cifar() -> tuple[Tensor, Tensor]:
    """The first 20 test images of CIFAR-10, out of the mirror."""
    file = Path(os.environ.get("TURNCOAT_MIRROR", "none")) / "cifar-10-batches-py/test_batch"
    try:
        find("resnet20-12fca82f.th")
    except TurncoatError as error:
        pytest.skip(str(error))
    if not file.is_file():
        pytest.skip(f"{file}: CIFAR-10 is not there; TURNCOAT_MIRROR may name its folder")
    assert hashlib.md5(file.read_bytes()).hexdigest() == "40351d587109b95175f43aff81a1287e"  # before a pickle is run
    raw = pickle.loads(file.read_bytes(), encoding="bytes")  # noqa: S301
    return torch.tensor(raw[b"data"][:20].reshape(-1, 3, 32, 32)), torch.tensor(raw[b"labels"][:20])


def test_the_guides_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = cifar()
    np.savez(tmp_path / "cifar.npz", images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
    guide = (ROOT / "docs/own-network.md").read_text()
    block = next(part for part in guide.split("```")[1::2] if "resnet20-12fca82f.th" in part and "--data" in part)
    words = block.removeprefix("sh").replace("\\\n", " ").split()[3:]  # behind python -m turncoat.evaluation
    words[words.index("--data") + 1] = "cifar.npz"  # 20 of them: reading the whole set takes a minute
    words[words.index("--images") + 1] = "20"
    (tmp_path / "networks").symlink_to(Path(find("resnet20-12fca82f.th")).absolute().parent)
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, *words, "--json", "f.json")
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["clean"]["correct"] >= 16
    assert found["attacks"]["autoattack"]["correct"] == 0
