"""The study on a bare machine: torch and a few pure libraries, and nothing of what keeps track of a study elsewhere."""

import os
import shutil
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from stages import bare, inputs
from stages.marks import Marks
from stages.pipeline import Cell, cells
from stages.walk import Unfinished
from tests.defaults import DEFAULTS
from turncoat.closure import checksums, closure
from turncoat.errors import TurncoatError
from turncoat.files import checksum, read_json
from turncoat.papers.index import module_of
from turncoat.settings import merged

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
    params = merged(DEFAULTS).values
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
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
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

    with open(folder / "turncoat/training/loop.py", "a") as file:
        file.write("# a comment in the code\n")
    for seed in ("0", "0, 1"):  # a comment and a line in another form, then a seed
        text = (folder / "params.yaml").read_text().replace("seeds:\n  - 0\n", "seeds: [0]\n")
        (folder / "params.yaml").write_text("# a comment\n" + text.replace("seeds: [0]", f"seeds: [{seed}]"))
        before = set((folder / ".scratch/logs").iterdir())
        for log in before:
            log.unlink()
        done = python("-m", "stages.bare", "--minutes", "10")
        assert done.returncode == 0, done.stdout + done.stderr
        again = {path.stem for path in (folder / ".scratch/logs").iterdir()} - {"inputs"}
        assert {name for name in again if not name.endswith("-1")} == ({"analyse@digits"} if "1" in seed else set())
        assert len(again) == (8 if "1" in seed else 0)

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


RAT = f"{module_of('rat').replace('.', '/')}.py"
STUDY = {
    "datasets": ["digits"],
    "arms": ["mart", "rat"],
    "seeds": [0],
    "suite": "quick",
    "pretrained": [],
    "tuning": {"arms": [], "trials": [0, 1, 2, 3, 4], "seeds": [100]},
}


def digests(folder, change):
    """What each cell's mark says after a change of params.yaml and the code of a copy of the repository."""
    params = merged(DEFAULTS).values
    params["study"] |= STUDY
    change(params)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    inputs.main()
    plan = cells(params)
    found = Marks(plan)
    return {name: found.digest(cell) for name, cell in plan.items() if cell.stage not in ("inputs", "report")}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with dvc.yaml, and with a copy of the code that `inputs` looks at."""
    for name in ("stages", "turncoat"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["inputs"])
    monkeypatch.setattr(inputs, "ROOT", tmp_path)
    monkeypatch.setattr(inputs, "closure", partial(closure, root=tmp_path))
    monkeypatch.setattr(inputs, "checksums", partial(checksums, root=tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        (lambda p: p["study"].update(seeds=[0, 1]), {"analyse"}),
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
        (lambda p: edited("turncoat/training/loop.py", "# a comment"), set()),
        (lambda p: edited("stages/analyse.py", "EDITED = True"), {"analyse"}),
        (lambda p: edited(RAT, "EDITED = True"), {"finetune-rat", "evaluate-rat", "analyse"}),
    ],
)
def test_an_edit_undoes_what_rests_on_it_alone(here, change, anew):
    before, after = digests(here, lambda params: None), digests(here, change)
    changed = {name for name, digest in before.items() if after[name] != digest}
    named = {part for part in anew if "-" not in part}
    expected = {name for name in before if name.split("@")[0] in named}
    expected |= {f"{part.split('-')[0]}@digits-{part.split('-')[1]}-0" for part in anew - named}
    assert changed == expected


def test_an_edit_of_a_grid_undoes_the_trials_of_its_arm_that_it_changes(here):
    def tuned(params):
        params["study"]["tuning"] = STUDY["tuning"] | {"arms": ["mart-tuned", "rat-tuned"]}

    def changed(params):
        tuned(params)
        params["arms"]["mart-tuned"] = {"tune": {"beta": [0.25, 0.5, 1.5, 2.0, 5.0]}}

    before, after = digests(here, tuned), digests(here, changed)
    assert {name for name, digest in before.items() if after[name] != digest} == {
        "trial@digits-mart-tuned-2-100",
        *("finetune-tuned@digits-mart-tuned-0", "evaluate-tuned@digits-mart-tuned-0", "analyse@digits"),
    }


def edited(file, line):
    with open(file, "a") as code:
        code.write(f"\n{line}\n")


def test_the_checksums_are_made_anew_where_anything_was_edited(here):
    digests(here, lambda params: None)
    plan = cells(merged("params.yaml").values)
    Marks(plan).set(plan["inputs"])
    assert Marks(plan).done(plan["inputs"])
    edited("turncoat/training/loop.py", "# a comment")
    assert not Marks(plan).done(plan["inputs"])


def test_a_mark_holds_with_the_files_alone(here):
    digests(here, lambda params: None)
    plan = cells(merged("params.yaml").values)
    cell = plan["download@digits"]
    Marks(plan).set(cell)
    assert not Marks(plan).done(cell)
    Path("data/digits").mkdir()
    assert Marks(plan).done(cell)


def test_a_slice_ends_at_its_deadline_and_a_failure_names_its_log(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    bare.LOGS.mkdir(parents=True)

    def cell(code):
        return Cell("odd@digits", "odd", {}, [sys.executable, "-c", code], [], [], [])

    assert bare.execute(cell("print('a'); print('done')"), dict(os.environ), time.monotonic() + 60) == "done"
    with pytest.raises(Unfinished, match="cut off"):
        bare.execute(cell("import time; time.sleep(60)"), dict(os.environ), time.monotonic() + 0.3)
    with pytest.raises(Unfinished, match="next slice"):
        bare.execute(cell(""), dict(os.environ), time.monotonic() - 1)
    with pytest.raises(TurncoatError, match=r"odd@digits failed: no network; see .*odd@digits\.log"):
        bare.execute(cell("print('no network'); raise SystemExit(2)"), dict(os.environ), time.monotonic() + 60)


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
