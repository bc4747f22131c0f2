"""The table of the official AutoAttack, on a cell made up here; the package itself is stood in for."""

import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import official
from tests.defaults import DEFAULTS
from turncoat import data, models
from turncoat.files import read_json, write_json


class Stand:
    """Takes the place of the official AutoAttack: darkens every image by more than it may."""

    asked: dict[str, Any] = {}

    def __init__(self, model: torch.nn.Module, **given: Any) -> None:
        Stand.asked = given

    def run_standard_evaluation(self, images: torch.Tensor, labels: torch.Tensor, batch_size: int) -> Any:
        return images - 0.5, labels


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    """A record in which every image stands, of an untrained network."""
    module = ModuleType("pyautoattack")
    module.AutoAttack = Stand  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyautoattack", module)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").symlink_to(DEFAULTS)
    with monkeypatch.context() as patch:
        from stages import download

        patch.setattr("sys.argv", ["download", "--dataset", "digits"])
        download.main()
    digits = data.load(Path("data/digits"))
    models.save(
        Path("models/digits/mart/0/best.safetensors"),
        models.Classifier("small_cnn", 10, digits.shape, digits.mean, digits.std),
    )
    folder = Path("reports/records/digits/mart/0")
    folder.mkdir(parents=True)
    np.savez(folder / "examples.npz", worst=np.arange(997) % 2 == 0)
    threat = {"norm": "linf", "epsilon": 0.15}
    record = {"examples": {"file": "examples.npz"}, "threat": threat, "flags": [], "weights": {"best": "one"}}
    write_json(folder / "record.json", record)
    return Namespace(data=Path("data"), models=Path("models"), records=Path("reports/records"), images=40)


def test_a_row_is_judged_by_the_network_inside_the_threat(cell: Namespace) -> None:
    row = official.attacked("digits", "mart", 0, cell)
    assert (row.version, row.n, row.worst) == ("standard", 40, 20)
    assert Stand.asked | {"device": None} == {
        "norm": "Linf",
        "eps": 0.15,
        "version": "standard",
        "seed": 0,
        "device": None,
    }
    test = data.load(Path("data/digits")).test
    images, labels = torch.tensor(test.images[:40]) / 255, torch.tensor(test.labels[:40])
    with torch.no_grad():
        right = models.load("models/digits/mart/0/best.safetensors")((images - 0.15).clamp(0, 1)).argmax(1) == labels
    assert row.official == int(right.sum())
    assert row.both == int((right & (torch.arange(40) % 2 == 0)).sum())


def test_the_table_is_kept_and_says_what_was_not_run(
    cell: Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(official, "version", lambda name: "0.2.0")
    given = "--dataset digits --arm mart --arm pgd --seed 0 --images 40 --out kept"
    monkeypatch.setattr("sys.argv", ["official", *given.split()])
    with pytest.raises(SystemExit, match="not run: digits/pgd/0"):
        official.main()
    row = official.attacked("digits", "mart", 0, cell)
    assert row.line in capsys.readouterr().out
    kept = read_json("kept.json")
    assert (kept["not_run"], len(kept["rows"])) == (["digits/pgd/0"], 1)
    assert row.line in Path("kept.md").read_text()
    assert f"lowers a record by {row.lowered:.1f} points" in Path("kept.md").read_text()


def test_a_table_that_was_cut_goes_on(cell: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "version", lambda name: "0.2.0")
    given = "--dataset digits --arm mart --seed 0 --images 40 --out kept"
    monkeypatch.setattr("sys.argv", ["official", *given.split()])
    for attacks in (1, 0, 1):  # the last: of other weights
        monkeypatch.setattr(Stand, "asked", {})
        with pytest.raises(SystemExit) as ended:
            official.main()
        assert ended.value.code == 0
        assert bool(Stand.asked) == bool(attacks)
        record = Path("reports/records/digits/mart/0/record.json")
        if not attacks:
            write_json(record, read_json(record) | {"weights": {"best": "another"}})
