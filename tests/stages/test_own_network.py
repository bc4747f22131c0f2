"""A network and weights of one's own through the stages, up to the record; what cannot work stops at the baseline."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from stages import analyse, baseline, download, evaluate, finetune, perturb, pretrain
from tests.defaults import DEFAULTS
from turncoat import models
from turncoat.errors import TurncoatError
from turncoat.files import read_json, sha256
from turncoat.reading import read_yaml

ROOT = Path(__file__).parents[2]
NORMALISATION = {"mean": [0.25], "std": [0.5]}
MINE = """
from torch import nn

def build(classes, shape, width):
    return nn.Sequential(nn.Conv2d(shape[0], width, 3, 2), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3),
                         nn.Flatten(), nn.Linear(width, classes))
"""


def run(monkeypatch, stage, **arguments):
    given = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", [stage.__name__, *given])
    stage.main()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A study of few digits whose network is a user's own, with a user's weights."""
    params = read_yaml(DEFAULTS)
    params["study"] |= {"datasets": ["digits"], "arms": ["advamd", "reverse"], "seeds": [0], "suite": "tiny"}
    params["study"] |= {"pretrained": []}
    params.setdefault("suites", {})["tiny"] = {"attacks": {"pgd-20": {"attack": "pgd", "steps": 2}}}
    params["universal"] = {}
    digits = params["datasets"]["digits"]
    digits["data"] |= {"train": 100, "validation": 50, "test": 50}
    for schedule in ("training", "finetuning"):
        digits[schedule] |= {"epochs": 1, "validate_every": 1}
    digits |= {"model": "networks/mine.py:build", "model_args": {"width": 6}}
    digits["baseline"] = {"weights": "theirs.pth", "normalisation": NORMALISATION}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURNCOAT_TRACKING", "off")
    Path("networks").mkdir()
    Path("networks/mine.py").write_text(MINE)
    torch.manual_seed(3)
    trained = models.Classifier("networks/mine.py:build", 10, (1, 8, 8), [0.25], [0.5], {"width": 6})
    torch.save({"state_dict": trained.network.state_dict()}, "networks/theirs.pth")

    def write(**changes):
        digits.update(changes)
        Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    write()
    run(monkeypatch, download, dataset="digits")
    return write


@pytest.mark.slow
def test_ones_own_network_goes_through_every_stage(folder, monkeypatch):
    cell = {"dataset": "digits", "seed": 0}
    for stage in (baseline, perturb, pretrain):
        run(monkeypatch, stage, **cell)
    told = {"weights": "theirs.pth", "sha256": sha256("networks/theirs.pth"), "normalisation": NORMALISATION}
    made = read_json("models/digits/baseline/0/training.json")
    assert made["given"] == told
    assert made["epochs"] == made["cost"]["images"] == 0
    for arm in ("advamd", "reverse"):
        run(monkeypatch, finetune, arm=arm, **cell)
        run(monkeypatch, evaluate, arm=arm, **cell)
        record = read_json(f"reports/records/digits/{arm}/0/record.json")
        assert record["settings"]["dataset"]["baseline"] == told
        assert record["settings"]["dataset"]["model_args"] == {"width": 6}
        assert record["best"]["clean"]["n"] == 50
        with pytest.raises(TurncoatError, match=r"names code, networks/mine\.py:build"):
            models.load(f"models/digits/{arm}/0/best.safetensors")
    run(monkeypatch, analyse, dataset="digits")
    before = made["fingerprint"]
    Path("networks/mine.py").write_text(MINE + "\n# edited\n")
    run(monkeypatch, baseline, **cell)
    assert read_json("models/digits/baseline/0/training.json")["fingerprint"] != before, "the code is part of the work"


@pytest.mark.parametrize("given", [True, False])
def test_a_network_that_an_arm_cannot_work_on_is_refused_before_anything_is_trained(folder, monkeypatch, given):
    folder(model="timm/test_vit", model_args={"patch_size": 4})
    network = models.Classifier("timm/test_vit", 10, (1, 8, 8), [0.25], [0.5], {"patch_size": 4}).network
    torch.save(network.state_dict(), "networks/theirs.pth")
    if not given:
        folder(baseline=None)
    with pytest.raises(TurncoatError, match=r"arms\.advamd cannot work with .* timm/test_vit: .* no BatchNorm2d"):
        run(monkeypatch, baseline, dataset="digits", seed=0)
    assert not Path("models").exists()
