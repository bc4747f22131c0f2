"""The study on a bare machine: torch and a few pure libraries, and nothing of what keeps track of a study elsewhere."""

import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import yaml

from stages import bare, marks
from stages.common import Work, phases
from turncoat.errors import TurncoatError
from turncoat.files import checksum, read_json
from turncoat.settings import Settings, load, merged, read_yaml
from turncoat.settings import validate as validated

ROOT = Path(__file__).parents[2]
ABSENT = ("dvc", "mlflow", "ruamel", "matplotlib", "jinja2", "statsmodels", "pandas")
BLOCKER = f"""
import sys
from importlib.machinery import PathFinder

class Kept(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {ABSENT} else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Kept if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture
def machine(tmp_path):
    """A folder with the code and a tiny study, and an environment without the modules."""
    for name in ("stages", "turncoat"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    params = read_yaml(ROOT / "params.yaml")
    params["study"] |= {"datasets": ["digits"], "arms": ["mart"], "seeds": [0], "suite": "tiny", "pretrained": []}
    params["study"]["arms"] = ["standard", "rat"]
    params["arms"]["rat"] |= {"subset": 20}
    digits = params["datasets"]["digits"]
    digits["data"] |= {"train": 100, "validation": 50, "test": 50}
    for schedule in ("training", "finetuning"):
        digits[schedule] |= {"epochs": 1}
    params["universal"] = {"sgd": {"form": "sgd", "passes": 1}}
    params["suites"]["tiny"] = {"attacks": {"fgsm": {"attack": "fgsm"}, "pgd-20": {"attack": "pgd", "steps": 2}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (tmp_path / "kept-away").mkdir()
    (tmp_path / "kept-away/sitecustomize.py").write_text(BLOCKER)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "kept-away"), "OMP_NUM_THREADS": "1"}
    return tmp_path, environment


@pytest.mark.slow
def test_it_needs_neither_dvc_nor_mlflow_nor_what_draws(machine):
    folder, environment = machine

    def python(*arguments):
        command = (sys.executable, *arguments)
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    for name in ABSENT:
        assert f"No module named '{name}'" in python("-c", f"import {name}").stderr
    done = python("-m", "stages.bare", "--minutes", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("all cells are done")
    record = read_json(folder / "reports/records/digits/rat/0/record.json")
    assert record["best"]["clean"]["n"] == 50
    assert not any((folder / name).exists() for name in ("mlflow.db", ".dvc"))
    assert read_json(folder / "reports/analysis/digits/analysis.json")["rat"]["arm"] == "rat"

    for seed in ("0", "0, 1"):  # a comment and a line in another form, then a seed
        text = (folder / "params.yaml").read_text().replace("seeds:\n  - 0\n", "seeds: [0]\n")
        (folder / "params.yaml").write_text("# a comment\n" + text.replace("seeds: [0]", f"seeds: [{seed}]"))
        before = set((folder / ".scratch/logs").iterdir())
        for log in before:
            log.unlink()
        done = python("-m", "stages.bare", "--minutes", "10")
        assert done.returncode == 0, done.stdout + done.stderr
        assert {path.stem[-1] for path in (folder / ".scratch/logs").iterdir()} == ({"1"} if "1" in seed else set())

    done = python("-m", "stages.bare", "--pack", "results.tar.gz")
    assert "results.tar.gz: 4 cells" in done.stdout, done.stdout + done.stderr
    here = folder / "checkout"
    for name in ("stages", "turncoat"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(folder / "params.yaml", here)
    with tarfile.open(folder / "results.tar.gz") as packed:
        assert sum(member.size for member in packed) < 5e6
        assert not [name for name in packed.getnames() if name.endswith((".safetensors", ".npy"))]
        packed.extractall(here, filter="data")
    environment = os.environ | {"TURNCOAT_TRACKING": "off"}
    done = subprocess.run(
        (sys.executable, "-m", "stages.report"), cwd=here, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 cells" in done.stdout
    assert (here / "reports/report.html").stat().st_size > 10_000
    assert (here / "reports/figures/rat-matrices-digits.svg").exists(), "figures of the analysis come back too"
    assert (here / "reports/curves/training.csv").exists(), "and the histories"


STUDY = {"datasets": ["digits"], "arms": ["mart", "rat"], "seeds": [0], "suite": "quick", "pretrained": []}


def of_study(change=lambda params: None):
    params = merged(ROOT / "params.yaml").values
    params["study"] = dict(STUDY)
    change(params)
    return validated(Settings, params, "")


def digests(settings):
    found = marks.Marks(settings)
    return {str(work): found.digest(work) for phase in phases(settings.study) for chain in phase for work in chain}


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        (lambda p: p["study"].update(seeds=[0, 1]), set()),
        (lambda p: p["arms"]["trades"].update(beta=5.0), set()),
        (lambda p: p["suites"]["standard"].update(batch_size=7), set()),
        (lambda p: p["suites"]["quick"].update(batch_size=7), {"evaluate"}),
        (lambda p: p["arms"]["mart"].update(beta=5.5), {"finetune-mart", "evaluate-mart", "analyse"}),
        (lambda p: p["datasets"]["mnist"]["training"].update(lr=0.1), set()),
        (lambda p: p["universal"].clear(), {"perturb", "evaluate", "analyse"}),
        (
            lambda p: p["datasets"]["digits"]["finetuning"].update(lr=0.3),
            {"pretrain", "finetune", "evaluate", "analyse"},
        ),
    ],
)
def test_an_edit_of_params_yaml_undoes_what_rests_on_it_alone(monkeypatch, change, anew):
    monkeypatch.chdir(ROOT)
    before, after = digests(of_study()), digests(of_study(change))
    changed = {name for name, digest in before.items() if after[name] != digest}
    named = {part for part in anew if "-" not in part}
    expected = {name for name in before if name.split("@")[0] in named}
    expected |= {f"{part.split('-')[0]}@digits-{part.split('-')[1]}-0" for part in anew - named}
    assert changed == expected


def test_an_edit_of_the_code_undoes_the_stages_that_it_is_the_code_of(monkeypatch):
    monkeypatch.chdir(ROOT)
    before = digests(of_study())
    monkeypatch.setattr(marks, "checksum", lambda *paths: "new" if "stages/analyse.py" in paths else checksum(*paths))
    assert [name for name, digest in digests(of_study()).items() if digest != before[name]] == ["analyse@digits"]


def test_a_mark_holds_what_dvc_yaml_says_of_a_stage():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    settings = load(ROOT / "params.yaml")
    dataset, suite, seed = settings.study.datasets[0], settings.study.suite, settings.study.seeds[0]
    folders = {"data/{d}": "download", "models/{d}/baseline/{s}": "baseline", "models/{d}/pretrained/{s}": "pretrain"}
    folders |= {"data/perturbed/{d}/{s}": "perturb", "models/{d}/mart/{s}": "finetune"}
    for stage in ("download", "baseline", "perturb", "pretrain", "finetune", "evaluate", "analyse"):
        work = Work(stage, dataset, "mart" if stage in ("finetune", "evaluate") else None, seed)
        own, before = marks.basis(work, settings)

        def filled(text):
            for name, value in (("${item.dataset}", dataset), ("${item.arm}", "mart"), ("${item.seed}", seed)):
                text = text.replace(name, str(value))
            return text.replace("${study.suite}", suite)

        assert set(own) == {filled(name) for name in stages[stage]["params"][0]["data/settings.json"]}, stage
        if stage != "analyse":  # which depends on whole folders
            deps = {filled(path) for path in stages[stage]["deps"] if not path.startswith("data/code")}
            known = {path.format(d=dataset, s=seed): name for path, name in folders.items()}
            assert {known[path] for path in deps} == {work.stage for work in before}, stage


def test_after_ctrl_c_no_waiting_cell_starts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURNCOAT_WORKERS", "1")
    started = []

    def chain(works, *_):
        started.append(works)
        time.sleep(0.2)
        return True, "done"

    def interrupted(jobs):
        time.sleep(0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(bare, "_chain", chain)
    monkeypatch.setattr(bare, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bare.side_by_side([[Work("download", str(number))] for number in range(5)], None, time.monotonic() + 60)
    assert len(started) == 1


def test_a_failed_cell_keeps_no_other_from_its_end_and_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def chain(works, *_):
        if works[0].dataset == "1":
            raise TurncoatError("download@1 failed: no network; see its log")
        return works[0].dataset != "2", "said"

    monkeypatch.setattr(bare, "_chain", chain)
    works = [[Work("download", str(number))] for number in range(4)]
    with pytest.raises(TurncoatError, match="download@1 failed: no network"):
        bare.side_by_side(works, None, time.monotonic() + 60)
    assert capsys.readouterr().out.count("said") == 3
    assert bare.side_by_side([works[2], works[3]], None, time.monotonic() + 60) == 1


def test_nothing_to_pack_is_said(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TurncoatError, match="nothing to pack"):
        bare.pack(tmp_path / "results.tar.gz")


def test_a_checksum_follows_names_and_contents_and_no_caches(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code/a.py").write_text("1")
    (tmp_path / "params.yaml").write_text("2")

    def now():
        return checksum(tmp_path / "params.yaml", tmp_path / "code")

    seen = [now()]
    (tmp_path / "code/__pycache__").mkdir()
    (tmp_path / "code/__pycache__/a.pyc").write_text("compiled")
    assert now() == seen[0]
    (tmp_path / "params.yaml").write_text("3")
    seen.append(now())
    (tmp_path / "code/a.py").write_text("4")
    seen.append(now())
    (tmp_path / "code/a.py").rename(tmp_path / "code/b.py")
    seen.append(now())
    assert len(set(seen)) == 4
    with pytest.raises(TurncoatError, match=r"nothing: .* not there"):
        checksum(tmp_path / "nothing")
