"""Every arm of params.yaml, trained and evaluated in miniature on each data set, up to the report.

On digits; on `pictures`, a folder of images of 64×48 with one of timm's networks; and on what a mirror holds:

TURNCOAT_MIRROR=... python -m pytest -m slow tests/stages/test_every_arm.py -k "cifar10 and mart"

On CIFAR-10 the network is the ResNet-18 that params.yaml names: a core takes a minute an arm. In the fast run the five
papers' arms and two comparators go through every stage on `pictures`.
"""

import copy
import os
from pathlib import Path

import pytest
import yaml

from stages import analyse, baseline, download, evaluate, finetune, perturb, pretrain, report, trial
from tests.data.pictures import cats_and_dogs
from tests.defaults import DEFAULTS
from turncoat.files import read_json
from turncoat.settings import merged
from turncoat.tuning import SUFFIX

ROOT = Path(__file__).parents[2]
PARAMS = merged(DEFAULTS).values
ARMS = [name for name, arm in PARAMS["arms"].items() if arm.get("weight_by") != "pixel"]  # which need masks or boxes
IMAGES = {"digits": 60, "pictures": 24, "mnist": 60, "fashion_mnist": 60, "cifar10": 20}
PICTURES = {  # of somebody's own, with a network of a library
    "data": {"source": "folder", "path": "images"},
    "threat": {"norm": "linf", "epsilon": 8 / 255},
    "model": "timm/test_resnet",
    "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8},
    "training": {"epochs": 1, "lr": 0.05},
    "finetuning": {"epochs": 1, "lr": 0.05, "crop": 4, "flip": True},
}
TESTED = {name: images // 2 for name, images in IMAGES.items()} | {"pictures": 4}
SLOW = ("atop", "purifier")  # methods whose analysis takes minutes: attacks by up to 128 steps of 20 draws
PAPERS = ("mart", "advamd", "atop", "rat", "reverse")
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
        "rat": {"subset": 20} | ({"targets": [0]} if "targets" in arm else {}),  # two classes may be all there are
        "misclassified": {
            "attack": {"steps": 1, "radius": 0.1},
            "reference": {"epochs": 20, "batch_size": 5, "lr": 0.02},
        },
    }
    return arm | {"training": training} | more.get(arm["method"], {})


def name_arms(params, arms):
    """These arms as the study's; those with trials stand under its tuning."""
    tuned = [arm for arm in arms if "tune" in params["arms"][arm]]
    params["study"]["arms"] = [arm for arm in arms if arm not in tuned]
    params["study"]["tuning"]["arms"] = tuned


def prepared(name, arms, pretrained, folder, patch):
    """Data, baseline, perturbations and networks to build on, of a miniature study in `folder`; runs a stage of it."""
    images, params = IMAGES[name], copy.deepcopy(PARAMS)
    params["datasets"] |= {"pictures": copy.deepcopy(PICTURES)}
    params["study"] |= {
        "datasets": [name],
        "seeds": [0],
        "suite": "miniature",
        "pretrained": list(pretrained),
    }
    for section in ("arms", "pretrained"):
        params[section] = {key: small(arm) for key, arm in params[section].items()}
    settings = params["datasets"][name]
    settings["data"] |= {"train": images, "validation": images // 2, "test": TESTED[name]}
    for schedule in ("training", "finetuning"):
        settings[schedule] |= {"epochs": 1, "batch_size": images // 4, "validate_every": 1}
    params["study"]["tuning"] = {"trials": [0, 1], "seeds": [100]}
    name_arms(params, arms)
    params["universal"] = {"sgd": {"form": "sgd", "passes": 1}}
    params["suites"]["miniature"] = SUITE | ({"audit": 0} if name == "pictures" else {})  # in full: minutes an arm
    if name == "pictures":
        cats_and_dogs(folder / "images", each=images)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    patch.chdir(folder)
    patch.setenv("TURNCOAT_TRACKING", "off")

    def stage(module, *arguments):
        patch.setattr("sys.argv", [module.__name__, *arguments])
        module.main()

    stage(download, "--dataset", name)
    for module in (baseline, pretrain, perturb):
        stage(module, "--dataset", name, "--seed", "0")
    return stage


def reported(name, stage, arms, analysed):
    """Analyse the networks of some of these arms, report on all: what the report shows of the data set."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    for stage_, among in ((lambda: stage(analyse, "--dataset", name), analysed), (lambda: stage(report), arms)):
        name_arms(params, among)
        Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        stage_()
    assert name in Path("reports/report.html").read_text()
    return read_json("reports/summary.json")[name]


@pytest.fixture(scope="module", params=IMAGES)
def study(request, tmp_path_factory, monkeypatch_module):
    """A folder with data, baseline, perturbations and all purifiers of a miniature study; its data set."""
    name = request.param
    if name not in ("digits", "pictures") and not os.environ.get("TURNCOAT_MIRROR"):
        pytest.skip("TURNCOAT_MIRROR names no folder with this data set")
    folder = tmp_path_factory.mktemp(name)
    return name, prepared(name, ARMS, PARAMS["pretrained"], folder, monkeypatch_module)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def checked(name, arm, stage):
    for number in ("0", "1") if "tune" in PARAMS["arms"][arm] else ():
        stage(trial, "--dataset", name, "--arm", arm, "--trial", number, "--seed", "100")
    cell = ("--dataset", name, "--arm", arm, "--seed", "0")
    stage(finetune, *cell)
    stage(evaluate, *cell)
    record = read_json(Path(f"reports/records/{name}/{arm}/0/record.json"))
    assert record["best"]["worst"]["correct"] <= record["best"]["clean"]["correct"]
    assert record["best"]["clean"]["n"] == TESTED[name]


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_trains_and_stands_the_suite(study, arm):
    name, stage = study
    checked(name, arm, stage)


@pytest.mark.slow
def test_the_report_shows_every_arm_that_ran(study):
    name, stage = study
    ran = [arm for arm in ARMS if Path(f"reports/records/{name}/{arm}/0/record.json").exists()]
    if not ran:
        pytest.skip("no arm has run; leave out -k")
    methods = {arm: PARAMS["arms"][arm.removesuffix(SUFFIX)]["method"] for arm in ran}
    quick = [arm for arm in ran if arm == "atop" or methods[arm] not in SLOW]
    assert list(reported(name, stage, ran, quick)) == ran


def test_a_library_network_and_a_folder_go_through_every_stage(tmp_path, monkeypatch):
    arms = ("standard", "trades", *PAPERS)
    stage = prepared("pictures", arms, ["unet"], tmp_path, monkeypatch)
    assert read_json("data/pictures/dataset.json")["shape"] == [3, 48, 64]
    for arm in arms:
        checked("pictures", arm, stage)
    assert list(reported("pictures", stage, arms, [arm for arm in arms if arm not in SLOW])) == list(arms)
    found = read_json("reports/analysis/pictures/analysis.json")
    assert {"advamd", "rat", "reverse"} <= found.keys()
