"""Segmentation and detection through the pipeline: settings, resuming, kills, a report with verdicts, faults."""

import re
import shutil
from pathlib import Path

import pytest

from tests.faults.study import copy, lay, stage, stages
from turncoat.errors import TurncoatError
from turncoat.files import read_json, sha256
from turncoat.papers.arms import check_arms
from turncoat.settings import Settings, load, validate
from turncoat.shelves import merged
from turncoat.training import loop

ARMS = ["standard", "advamd"]
SETS = ("scenes-masks", "scenes-boxes")


def tiny(params):
    """Both tasks, two arms, two seeds, next to no training."""
    import yaml

    params.setdefault("suites", {})
    shelf = yaml.safe_load(Path("turncoat/data/datasets.yaml").read_text())["datasets"]
    for name in SETS:
        plan = shelf[name]
        plan["data"] |= {"train": 30, "validation": 8, "test": 10}
        plan["training"] |= {"epochs": 4, "validate_every": 2, "batch_size": 10}
        plan["finetuning"] |= {"epochs": 2, "validate_every": 1, "batch_size": 10}
        params["datasets"][name] = plan
    params["datasets"]["digits"]["training"] |= {"epochs": 2, "validate_every": 2}
    params["datasets"]["digits"]["finetuning"] |= {"epochs": 1, "validate_every": 1}
    params["suites"]["quick"] = {"images": 30, "attacks": {"pgd-20": {"attack": "pgd", "steps": 3}}}
    params["study"] |= {"datasets": ["digits"], "arms": list(ARMS), "pretrained": [], "seeds": [0, 1]}
    params["study"]["dense"] = {"datasets": list(SETS), "arms": list(ARMS), "suite": "dense"}
    params["suites"]["dense"] = {"batch_size": 5, "attacks": {"pgd-20": {"attack": "pgd", "steps": 3}}}


def dense_steps(names=SETS, seeds=("0", "1")):
    """Every stage of the two data sets, from the inputs to the analyses."""
    yield ("inputs",)
    for name in names:
        yield ("download", "--dataset", name)
        for seed in seeds:
            cell = ("--dataset", name, "--seed", seed)
            yield ("baseline", *cell)
            for arm in ARMS:
                yield ("finetune", *cell, "--arm", arm)
                yield ("evaluate_dense", *cell, "--arm", arm)
        yield ("analyse_dense", "--dataset", name)


def digits_steps():
    """Classification beside the two: the same arms and seeds."""
    yield ("download", "--dataset", "digits")
    for seed in ("0", "1"):
        cell = ("--dataset", "digits", "--seed", seed)
        yield ("baseline", *cell)
        yield ("perturb", *cell)
        for arm in ARMS:
            yield ("finetune", *cell, "--arm", arm)
            yield ("evaluate", *cell, "--arm", arm)
    yield ("analyse", "--dataset", "digits")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = lay(tmp_path_factory.mktemp("dense") / "study", tiny)
    stages(folder, [*dense_steps(), *digits_steps()])
    return folder


@pytest.mark.slow
def test_one_report_judges_all_tasks(study):
    told = stage(study, "report")
    assert "12 of 12 cells" in told
    verdicts = {(one["claim"], one["dataset"]): one for one in read_json(study / "reports/verdicts.json")}
    assert verdicts["advamd-over-standard", "digits"]["effect"] is not None
    assert verdicts["advamd-segmentation", "scenes-masks"]["effect"] is not None
    assert verdicts["advamd-detection", "scenes-boxes"]["effect"] is not None
    assert ("advamd-detection", "scenes-masks") not in verdicts
    assert not [claim for claim, name in verdicts if name in SETS and claim.startswith("mart")]
    assert {path.stem for path in (study / "reports/figures").glob("*.png")} >= {
        f"advamd-{figure}-{name}" for figure in ("found", "by-class", "mismatch", "surface") for name in SETS
    } | {"advamd-precision-recall-scenes-boxes"}
    page = (study / "reports/report.html").read_text()
    assert "mIoU in percent on 10 test images" in page
    assert {path.stem for path in (study / "reports/tables").glob("main-*.md")} == {
        "main-digits",
        *(f"main-{name}" for name in SETS),
    }
    assert "dvc repro -f -s finetune-dense@scenes-boxes-advamd-1 evaluate-dense@scenes-boxes-advamd-1" in page
    for record in study.glob("reports/records/*/*/*/record.json"):
        assert "larger" not in {flag["name"] for flag in read_json(record)["flags"]}


@pytest.mark.slow
@pytest.mark.fault(
    1, "a segmenter and a detector killed after their first epoch, AdvAmd too", "the same bytes in the end"
)
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("arm", ["baseline", "advamd"])
def test_a_killed_training_goes_on_to_the_same_bytes(study, name, arm, tmp_path):
    again = copy(study, tmp_path / "again")
    target = again / "models" / name / arm / "0"
    before = sha256(target / "best.safetensors")
    shutil.rmtree(target)
    step, more = ("baseline", ()) if arm == "baseline" else ("finetune", ("--arm", arm))
    cell = ("--dataset", name, "--seed", "0", *more)
    cut = f"""
from turncoat.training import loop
loop.CHECKPOINT_SECONDS = -1.0
from turncoat.training.checkpoint import Checkpoint
save = Checkpoint.save
def once(self, state, number):
    save(self, state, number)
    os.kill(os.getpid(), 9)
Checkpoint.save = once
import os, sys
sys.argv = ["{step}", *{cell!r}]
from stages.{step} import main
main()
"""
    import subprocess
    import sys

    from tests.faults.study import ENVIRONMENT

    done = subprocess.run([sys.executable, "-c", cut], cwd=again, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert not target.exists()
    assert "resuming after epoch 1" in stage(again, step, *cell)
    assert sha256(target / "best.safetensors") == before


@pytest.mark.slow
@pytest.mark.fault(4, "a mask on the disk damaged after it was made", "the stage stops, names file and remedy")
@pytest.mark.fault(
    8, "a learning rate without bounds on masks and boxes", "training stops before the weights are touched"
)
def test_a_damaged_mask_and_a_loss_that_is_not_finite_stop_the_stage(study, tmp_path):
    again = copy(study, tmp_path / "again")
    with open(again / "data/scenes-masks/train_labels.npy", "r+b") as file:
        file.seek(400)
        file.write(b"\xff\xff")
    told = stage(again, "finetune", "--dataset", "scenes-masks", "--arm", "standard", "--seed", "0", ok=False)
    assert "train_labels.npy: differs from its checksum in dataset.json" in told
    text = (again / "params.yaml").read_text()
    (again / "params.yaml").write_text(re.sub(r"lr: [\d.]+", "lr: 1.0e+30", text))
    told = stage(again, "baseline", "--dataset", "scenes-boxes", "--seed", "0", ok=False)
    assert "the loss or a gradient is not finite; the weights before it are kept" in told


def changed(**study):
    values, _, _ = merged("tests/params.yaml")
    values["study"] = values["study"] | study
    return validate(Settings, values, "", "params.yaml")


DENSE = {"datasets": ["scenes-masks"], "arms": ["standard"], "suite": "dense"}
REFUSED = [
    ({"dense": DENSE | {"arms": []}}, "study.dense: arms: none is named"),
    (
        {"dense": DENSE | {"datasets": ["digits"]}},
        "study.dense.datasets: digits is for classification; name it in study",
    ),
    ({"datasets": ["scenes-masks"]}, "study.datasets: scenes-masks is for segmentation; name it in study.dense"),
    ({"dense": DENSE | {"datasets": ["scene-masks"]}}, "scene-masks is not defined; did you mean scenes-masks"),
    ({"dense": DENSE | {"suite": "thick"}}, "study.dense.suite: thick is not defined"),
    ({"datasets": [], "arms": []}, "datasets: none is named; at least one is wanted"),
    ({"dense": DENSE | {"arms": ["advamd-tuned"]}}, "study.dense.arms: advamd-tuned is tuned"),
]


@pytest.mark.parametrize(("study", "told"), REFUSED)
def test_a_study_that_cannot_be_is_refused(study, told):
    with pytest.raises(TurncoatError, match=told):
        changed(**study)


def test_an_arm_of_another_paper_is_refused_in_one_line():
    check_arms(changed(dense=DENSE))
    with pytest.raises(
        TurncoatError, match=r"study.dense.arms: mart is of method mart, which needs one label an image"
    ):
        check_arms(changed(dense=DENSE | {"arms": ["mart"]}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": "classification", "model": "small_cnn"}, "task: source scenes is for segmentation or detection"),
        ({"task": "detection"}, "'small_segmenter' is not defined for detection; did you mean small_detector"),
        ({"model": "fcn_resnet5"}, "did you mean fcn_resnet50"),
        ({"model_args": {"a": 1}}, "small_segmenter takes none"),
        ({"baseline": {"weights": "x.pt"}}, "given weights are for classification"),
        ({"data": {"source": "masks", "path": "x", "validation": 3, "classes": ["a", "a"]}}, "a name stands twice"),
        ({"data": {"source": "scenes", "train": 3, "validation": 3}}, "train, validation and test are wanted"),
        ({"data": {"source": "coco", "path": "x"}}, "source coco is for detection"),
        ({"data": {"source": "digits", "validation": 3, "void": 3}}, "void: only masks, coco and voc read it"),
    ],
)
def test_a_data_set_that_cannot_be_is_refused(change, told):
    values, _, _ = merged("tests/params.yaml")
    values["datasets"]["scenes-masks"] = values["datasets"]["scenes-masks"] | change
    with pytest.raises(TurncoatError, match=told):
        validate(Settings, values, "", "params.yaml")


def test_no_cell_of_a_dense_set_is_named_like_another():
    assert load("tests/params.yaml").study.dense.datasets == []
    assert loop.CHECKPOINT_SECONDS > 0
