"""Every arm of params.yaml, trained and evaluated in miniature on each data set: digits, and what a mirror holds.

TURNCOAT_MIRROR=... python -m pytest -m slow tests/stages/test_every_arm.py -k "cifar10 and mart"

On CIFAR-10 the network is the ResNet-18 that params.yaml names: a core takes a minute an arm.
"""

import copy
import os
from pathlib import Path

import pytest
import yaml

from stages import baseline, download, evaluate, finetune, perturb, pretrain, trial
from tests.defaults import DEFAULTS
from turncoat.files import read_json
from turncoat.settings import merged

ROOT = Path(__file__).parents[2]
PARAMS = merged(DEFAULTS).values
IMAGES = {"digits": 60, "mnist": 60, "fashion_mnist": 60, "cifar10": 20}
SUITE = {
    "images": None,
    "attacks": {
        "pgd": {"attack": "pgd", "steps": 3},
        "autoattack": {"attack": "autoattack", "steps": 3, "queries": 5},
        "transfer-pgd-20": {"attack": "transfer", "stored": "pgd-20"},
        "apgd-eot": {"attack": "apgd", "steps": 2, "eot": 2},
    },
    "radii": [1.0],
    "shifts": ["contrast", "jpeg"],
    "universal": {"form": "sgd", "passes": 1},
}


def small(arm: dict) -> dict:
    """An arm of one epoch on few images; what else it does is its own.

    But for the network that chooses the misclassified images: it has to get some of 20 images right.
    """
    if "tune" in arm:
        return arm  # its namesake is small
    training = {key: value for key, value in arm.get("training", {}).items() if key not in ("epochs", "validate_every")}
    more = {
        "rat": {"subset": 20},
        "misclassified": {
            "attack": {"steps": 1, "radius": 0.1},
            "reference": {"epochs": 20, "batch_size": 5, "lr": 0.02},
        },
    }
    return arm | {"training": training} | more.get(arm["method"], {})


@pytest.fixture(scope="module", params=IMAGES)
def study(request, tmp_path_factory, monkeypatch_module):
    """A folder with data, baseline, perturbations and all purifiers of a miniature study; its data set."""
    name, images = request.param, IMAGES[request.param]
    if name != "digits" and not os.environ.get("TURNCOAT_MIRROR"):
        pytest.skip("TURNCOAT_MIRROR names no folder with this data set")
    params = copy.deepcopy(PARAMS)
    params["study"] |= {
        "datasets": [name],
        "seeds": [0],
        "suite": "miniature",
        "pretrained": list(params["pretrained"]),
    }
    for section in ("arms", "pretrained"):
        params[section] = {key: small(arm) for key, arm in params[section].items()}
    settings = params["datasets"][name]
    settings["data"] |= {"train": images, "validation": images // 2, "test": images // 2}
    for schedule in ("training", "finetuning"):
        settings[schedule] |= {"epochs": 1, "batch_size": images // 4, "validate_every": 1}
    params["study"]["tuning"] = {"arms": [], "trials": [0, 1], "seeds": [100]}
    params["universal"] = {"sgd": {"form": "sgd", "passes": 1}}
    params["suites"]["miniature"] = SUITE
    folder = tmp_path_factory.mktemp(name)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    monkeypatch_module.chdir(folder)
    monkeypatch_module.setenv("TURNCOAT_TRACKING", "off")

    def stage(module, *arguments):
        monkeypatch_module.setattr("sys.argv", [module.__name__, "--dataset", name, *arguments])
        module.main()

    stage(download)
    for module in (baseline, pretrain, perturb):
        stage(module, "--seed", "0")
    return name, stage


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.slow
@pytest.mark.parametrize("arm", PARAMS["arms"])
def test_an_arm_trains_and_stands_the_suite(study, arm):
    name, stage = study
    for number in ("0", "1") if "tune" in PARAMS["arms"][arm] else ():
        stage(trial, "--arm", arm, "--trial", number, "--seed", "100")
    stage(finetune, "--arm", arm, "--seed", "0")
    stage(evaluate, "--arm", arm, "--seed", "0")
    record = read_json(Path(f"reports/records/{name}/{arm}/0/record.json"))
    assert record["best"]["worst"]["correct"] <= record["best"]["clean"]["correct"]
    assert record["best"]["clean"]["n"] == IMAGES[name] // 2
