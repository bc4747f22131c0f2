"""A network and weights of one's own through the stages, up to the record; what cannot work stops at the baseline."""

import os
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from stages import analyse, baseline, download, evaluate, finetune, perturb, pretrain, report
from stages.pipeline import cells
from tests.defaults import DEFAULTS
from turncoat import models
from turncoat.data.fetch import in_mirror
from turncoat.data.sources import raw_files
from turncoat.errors import TurncoatError
from turncoat.evaluation import __main__ as evaluation
from turncoat.files import read_json, sha256
from turncoat.models.given import find
from turncoat.papers.settings_file import contents
from turncoat.reading import read_yaml
from turncoat.settings import load, merged

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


def test_dvc_sees_the_files_of_a_network_and_of_records_beside_the_study(folder):
    settings = load()
    before = contents(settings)
    files = {"networks/mine.py:build": "networks/mine.py", "theirs.pth": "networks/theirs.pth"}
    assert before["given"] == {"digits": {name: sha256(file) for name, file in files.items()}}
    assert settings.own_files
    Path("networks/mine.py").write_text(MINE + "\nBIAS = 1\n")
    assert contents(settings)["given"] != before["given"]
    plan = cells(merged("params.yaml").values, ROOT / "dvc.yaml")
    assert "given.digits" in plan["baseline@digits-0"].settings
    assert "beside" in plan["report"].settings
    Path("networks/theirs.pth").unlink()
    with pytest.raises(TurncoatError, match=r"weights theirs\.pth: no such file"):
        contents(settings)
    folder(model="networks/none.py:build")
    with pytest.raises(TurncoatError, match=r"networks/none\.py is not there"):
        contents(load())
    folder(model="small_cnn", model_args={}, baseline=None)
    assert contents(load())["given"] == {"digits": None}
    assert not load().own_files


def miniature(params, name):
    """The guide's study on few images, against two attacks."""
    mine = params["datasets"][name]
    mine["data"] |= {"train": 40, "validation": 20, "test": 20}
    mine["finetuning"] |= {"epochs": 1, "batch_size": 20}
    params["universal"] = {}
    params["suites"][params["study"]["suite"]] = {
        "images": 10,
        "attacks": {
            "pgd-20": {"attack": "pgd", "steps": 3},
            "transfer-pgd-20": {"attack": "transfer", "stored": "pgd-20"},
        },
        "audit": 0,
    }


@pytest.mark.slow
def test_the_guide_from_a_weights_file_to_the_page_that_compares(tmp_path, monkeypatch):
    try:
        find("resnet20-12fca82f.th")
    except TurncoatError as error:
        pytest.skip(str(error))
    if not in_mirror_of_cifar10():
        pytest.skip("TURNCOAT_MIRROR names no folder with CIFAR-10")
    guide = (ROOT / "docs/own-network.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    edit, beside = (read_yaml_text(block, tmp_path) for block in blocks)
    params = read_yaml(ROOT / "params.yaml")
    params["study"] |= edit["study"] | {"pretrained": [], "tuning": {"arms": []}}
    params["datasets"] |= edit["datasets"]
    miniature(params, "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURNCOAT_TRACKING", "off")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def write():
        Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    write()
    run(monkeypatch, download, dataset="mine")
    for stage in (baseline, pretrain, perturb):
        run(monkeypatch, stage, dataset="mine", seed=0)
    for arm in params["study"]["arms"]:
        run(monkeypatch, finetune, dataset="mine", arm=arm, seed=0)
        run(monkeypatch, evaluate, dataset="mine", arm=arm, seed=0)
    run(monkeypatch, analyse, dataset="mine")
    run(monkeypatch, report)
    page = Path("reports/report.html").read_text()
    assert all(f'id="cell-mine-{arm}"' in page for arm in ("frozen", "standard", "mart"))

    command = re.search(r"```sh\n(python -m turncoat\.evaluation[^`]*--record[^`]*)```", guide)[1]
    words = command.replace("\\\n", " ").split()[3:]
    words[words.index("--model") + 1] = "resnet20"
    words[words.index("--weights") + 1] = "resnet20-12fca82f.th"
    words[words.index("--normalisation") + 1] = "0.485,0.456,0.406/0.229,0.224,0.225"
    monkeypatch.setattr(sys, "argv", ["evaluation", *words])
    evaluation.main()
    params["study"] |= beside["study"]
    write()
    run(monkeypatch, report)
    rows = read_json("reports/summary.json")["mine"]
    assert list(rows) == ["frozen", "standard", "mart", "theirs"]
    assert rows["theirs"]["clean"] >= 80
    assert 'id="cell-mine-theirs"' in Path("reports/report.html").read_text()


def in_mirror_of_cifar10():
    mirror = os.environ.get("TURNCOAT_MIRROR")
    return mirror and all(in_mirror(file, "cifar10", Path(mirror)) for file in raw_files("cifar10"))


def read_yaml_text(text, folder):
    """As params.yaml is read: 8/255 is a number."""
    (folder / "guide.yaml").write_text(text)
    return read_yaml(folder / "guide.yaml")
