"""Tuned arms through their stages: what a trial sees, what is chosen, what runs again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from stages import baseline, download, finetune, pretrain, training, trial
from stages.pipeline import cells
from tests.defaults import DEFAULTS
from tests.stages.test_study import ENVIRONMENT, ROOT, edit, ran, shell, shrink
from turncoat.errors import Diverged, TurncoatError
from turncoat.files import read_json, sha256
from turncoat.settings import merged
from turncoat.training import loop

TUNED = "mart-tuned"
GRID = [0.5, 5.0]


def tune(params, arms=(TUNED,)):
    """Two arms with two points each, beside the given ones."""
    shrink(params)
    params["study"] |= {"arms": ["mart", "trades"], "tuning": {"arms": list(arms), "trials": [0, 1], "seeds": [100]}}
    params["arms"][TUNED] = {"tune": {"beta": list(GRID)}}
    params["arms"]["trades-tuned"] = {"tune": {"beta": [1.0, 6.0]}}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A study with its data and its first baseline, and nothing else."""
    folder = tmp_path_factory.mktemp("begun")
    params = merged(DEFAULTS).values
    tune(params)
    params["datasets"]["digits"]["finetuning"] |= {"epochs": 4, "validate_every": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TURNCOAT_TRACKING", "off")
        stage(patch, download)
        for module in (baseline, pretrain):
            stage(patch, module, "--seed", "0")
    return folder


@pytest.fixture
def here(begun, tmp_path, monkeypatch):
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURNCOAT_TRACKING", "off")
    return monkeypatch


def stage(patch, module, *arguments):
    patch.setattr("sys.argv", [module.__name__, "--dataset", "digits", *arguments])
    module.main()


def tried(patch, number):
    stage(patch, trial, "--arm", TUNED, "--trial", str(number), "--seed", "100")
    return read_json(f"reports/trials/digits/{TUNED}/{number}/100.json")


def fine(patch):
    stage(patch, finetune, "--arm", TUNED, "--seed", "0")
    return read_json(f"models/digits/{TUNED}/0/training.json")


def test_the_arm_is_trained_at_the_point_that_validation_likes_best_and_says_so(here):
    values = [tried(here, number)["validation"]["robust"] for number in (0, 1)]
    told = fine(here)
    tuning = told["tuning"]
    assert [row["validation"] for row in tuning["trials"]] == [[value] for value in values]
    best = GRID[1] if values[1] >= values[0] else GRID[0]  # of equals the given one, 5
    assert tuning["chosen"] == {"beta": best}
    assert told["settings"]["arm"]["beta"] == best
    assert (tuning["grid"], tuning["own"], tuning["seeds"]) == ({"beta": GRID}, {"beta": 5.0}, [100])
    assert tuning["metric"] == "robust"
    assert tuning["forward"] > 2 * 4 * 100, "the passes of both trials, more than one an image and epoch"
    assert not Path(f"models/digits/{TUNED}-trial-0").exists()
    assert not list(Path(".scratch/trials").rglob("*.safetensors")), "the weights of trials are not kept"


@pytest.mark.parametrize("higher", [0, 1])
def test_the_higher_one_is_chosen_whichever_it_is(here, higher):
    for number in (0, 1):
        tried(here, number)
        path = Path(f"reports/trials/digits/{TUNED}/{number}/100.json")
        kept = read_json(path)
        kept["validation"] = {"clean": 0.9 - number * 0.1, "robust": 0.5 + 0.1 * (number == higher)}
        path.write_text(json.dumps(kept))
    assert fine(here)["settings"]["arm"]["beta"] == GRID[higher]
    clean = yaml.safe_load(Path("params.yaml").read_text())
    clean["arms"][TUNED]["tune_by"] = "clean"
    Path("params.yaml").write_text(yaml.safe_dump(clean, sort_keys=False))
    assert fine(here)["settings"]["arm"]["beta"] == GRID[0], "by clean accuracy the first is the best"


def test_a_trial_sees_no_test_image(here):
    """With a test split that cannot be read it comes to the same bytes."""
    path = Path(f"reports/trials/digits/{TUNED}/1/100.json")
    tried(here, 1)
    before = sha256(path)
    path.unlink()
    real = training.data.load

    class Blind:
        def __init__(self, images):
            self.images = images

        def __getattr__(self, name):
            assert name != "test", "a trial asked for the test split"
            return getattr(self.images, name)

    here.setattr(training.data, "load", lambda folder: Blind(real(folder)))
    tried(here, 1)
    assert sha256(path) == before
    here.setattr(training.data, "load", lambda folder: Shuffled(real(folder)))
    tried(here, 1)
    assert sha256(path) != before, "while other validation labels do change it"


class Shuffled:
    """The images with their validation labels in another order."""

    def __init__(self, images):
        self.images = images

    def __getattr__(self, name):
        found = getattr(self.images, name)
        return type(found)(found.images, np.roll(found.labels, 1)) if name == "validation" else found


def test_a_trial_that_was_cut_off_goes_on_and_comes_to_the_same(here):
    whole = tried(here, 0)
    real, began = loop._epoch, []
    here.setattr(loop, "CHECKPOINT_SECONDS", -1.0)

    def cut(*arguments):
        epoch = arguments[7]
        began.append(epoch)
        if epoch == 2 and began.count(2) == 1:
            raise KeyboardInterrupt
        return real(*arguments)

    here.setattr(loop, "_epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        tried(here, 0)
    assert tried(here, 0) == whole
    assert began == [0, 1, 2, 2, 3]


def test_a_training_that_fails_is_a_trial_without_a_value(here):
    tried(here, 1)
    here.setattr(trial, "parse", lambda *_: type("A", (), {"dataset": "digits", "arm": TUNED, "trial": 0, "seed": 100}))

    def fails(*_, **__):
        raise Diverged("epoch 1: the loss or a gradient is not finite")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", fails)
        trial.main()
    assert "not finite" in read_json(f"reports/trials/digits/{TUNED}/0/100.json")["failed"]
    told = fine(here)["tuning"]
    assert told["trials"][0]["validation"] == [None]
    assert told["chosen"] == {"beta": 5.0}


def test_a_trial_of_another_grid_is_not_taken_for_this_one(here):
    for number in (0, 1):
        tried(here, number)
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["arms"][TUNED]["tune"]["beta"] = [0.7, 5.0]
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    with pytest.raises(TurncoatError, match=r"no trial of \{'beta': 0.7\}; run `python -m stages.trial .*--trial 0"):
        fine(here)


def test_an_untuned_study_has_no_trials_and_a_tuned_one_trains_its_tuned_arms_behind_them():
    params = merged(DEFAULTS).values
    assert not [name for name in cells(params, ROOT / "dvc.yaml") if "trial" in name or "tuned" in name]
    params["study"]["tuning"]["arms"] = ["trades-tuned"]
    plan = cells(params, ROOT / "dvc.yaml")
    trials = [f"trial@digits-trades-tuned-{number}-100" for number in range(5)]
    assert [name for name in plan if name.startswith("trial@")] == trials
    assert set(trials) < set(plan["finetune-tuned@digits-trades-tuned-2"].follows)
    assert "baseline@digits-0" in plan[trials[0]].follows
    assert "finetune-tuned@digits-trades-tuned-2" in plan["evaluate-tuned@digits-trades-tuned-2"].follows
    assert not set(plan["finetune@digits-trades-2"].follows) & set(trials)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study of two tuned arms and the given ones, through DVC."""
    folder = tmp_path_factory.mktemp("tuned")
    for name in ("stages", "turncoat", ".dvc"):
        skipped = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    for path in (DEFAULTS, *(ROOT / name for name in ("dvc.yaml", ".dvcignore", ".gitignore"))):
        shutil.copy(path, folder / path.name)
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    edit(folder, lambda params: tune(params, [TUNED, "trades-tuned"]))
    edit(folder, lambda params: params["study"].update(arms=["standard"]))
    shell(folder, sys.executable, "-m", "stages.repro")
    return folder


def test_a_second_run_does_nothing_and_an_edited_grid_runs_its_own_trials(study):
    assert ran(shell(study, "dvc", "repro")) == []
    record = json.loads((study / f"reports/records/digits/{TUNED}/0/record.json").read_text())
    assert record["tuning"]["grid"] == {"beta": GRID}
    assert record["settings"]["arm"]["beta"] == record["tuning"]["chosen"]["beta"]
    times = json.loads((study / f"reports/times/digits/{TUNED}/0.json").read_text())
    assert times["seconds"]["tuning"] > 0
    tables = (study / "reports/tables/tuning-digits.md").read_text()
    assert f"| {TUNED} | beta 0.5: " in tables
    verdicts = json.loads((study / "reports/verdicts.json").read_text())
    told = {verdict["claim"]: verdict for verdict in verdicts if verdict["dataset"] == "digits"}
    assert told["mart-over-trades-pgd"]["tuning"].startswith(f"tuned: {TUNED} (beta ")
    assert told["mart-over-trades-pgd"]["tuning"].endswith("; the arms as given: not run")
    assert told["mart-over-trades-pgd"]["cells"] == [f"digits/{TUNED}/0", "digits/trades-tuned/0"]

    edit(study, lambda params: params["arms"][TUNED]["tune"].update(beta=[0.7, 5.0]))
    again = [name for name in ran(shell(study, "dvc", "repro")) if name not in ("inputs", "analyse@digits", "report")]
    assert again[:2] == [f"trial@digits-{TUNED}-0-100", f"finetune-tuned@digits-{TUNED}-0"]
    assert set(again[2:]) <= {f"evaluate-tuned@digits-{TUNED}-0"}

    edit(study, lambda params: params["study"]["tuning"].update(arms=[]))
    assert ran(shell(study, "dvc", "repro")) == ["inputs", "analyse@digits", "report"]
    assert not (study / "reports/tables/tuning-digits.md").exists()


def test_unequal_trials_stop_at_inputs(study):
    params = (study / "params.yaml").read_text()
    edit(study, lambda params: params["arms"]["trades-tuned"]["tune"].update(beta=[6.0]))
    edit(study, lambda params: params["study"]["tuning"].update(arms=[TUNED, "trades-tuned"]))
    done = subprocess.run(
        [sys.executable, "-m", "stages.inputs"], cwd=study, env=ENVIRONMENT, capture_output=True, text=True
    )
    (study / "params.yaml").write_text(params)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "arms.trades-tuned.tune: has 1 points, where study.tuning has 2 trials: give each side of a comparison as many"
    )
