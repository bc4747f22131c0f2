"""The study on a bare machine: torch and a few pure libraries, and nothing of what keeps track of a study elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from turncoat.errors import TurncoatError
from turncoat.files import checksum, read_json
from turncoat.settings import read_yaml

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
    record = read_json(folder / "reports/records/digits/mart/0/record.json")
    assert record["best"]["clean"]["n"] == 50
    assert not any((folder / name).exists() for name in ("mlflow.db", ".dvc"))


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
