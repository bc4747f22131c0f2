"""A sixth paper, added as CONTRIBUTING.md says: a folder from the template and a line; then the study in miniature."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.defaults import DEFAULTS
from turncoat.reading import read_yaml

ROOT = Path(__file__).parents[2]
SUITE = {
    "attacks": {"fgsm": {"attack": "fgsm"}, "pgd-20": {"attack": "pgd", "steps": 3}},
    "radii": [1.0],
}
STUDY = """
import sys
from stages import analyse, baseline, download, evaluate, finetune, inputs, perturb
cell = ["--dataset", "digits", "--seed", "0"]
plan = [(inputs, []), (download, cell[:2]), (baseline, cell), (perturb, cell)]
plan += [(stage, [*cell, "--arm", arm]) for arm in ("standard", "toy", "toy-plain") for stage in (finetune, evaluate)]
for stage, arguments in [*plan, (analyse, cell[:2])]:
    sys.argv = [stage.__name__, *arguments]
    stage.main()
"""
REPORT_WITHOUT_TORCH = """
import sys
class NoTorch:
    def find_spec(name, *rest):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoTorch)
from stages import report
sys.argv = ["report"]
report.main()
assert not [name for name in sys.modules if name.startswith("turncoat.methods.")]
"""


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TURNCOAT_TRACKING": "off", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    return subprocess.run(
        (sys.executable, *arguments), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with the toy paper in it, and settings of a tiny study of its two arms."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("stages", "turncoat"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copytree(
        ROOT / "tests/papers/template", folder / "turncoat/papers/toy", ignore=shutil.ignore_patterns("__pycache__")
    )
    the_list = folder / "turncoat/papers/__init__.py"
    text, lines = re.subn(r"^(PAPERS = \(.*)\)", r'\1, "toy")', the_list.read_text(), flags=re.M)
    assert lines == 1
    the_list.write_text(text)
    params = read_yaml(DEFAULTS)
    params["study"] |= {"datasets": ["digits"], "arms": ["standard", "toy", "toy-plain"], "seeds": [0], "suite": "tiny"}
    params["study"]["pretrained"] = []
    digits = params["datasets"]["digits"]
    digits["data"] |= {"train": 100, "validation": 50, "test": 50}
    digits["training"] |= {"epochs": 2}
    digits["finetuning"] |= {"epochs": 2}
    params["universal"] = {"sgd": {"form": "sgd", "passes": 1}}
    params.setdefault("suites", {})["tiny"] = SUITE
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def test_a_toy_paper_has_its_section_figure_and_verdict(repository: Path) -> None:
    done = python(repository, "-c", STUDY)
    assert done.returncode == 0, done.stdout + done.stderr
    done = python(repository, "-c", REPORT_WITHOUT_TORCH)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (repository / "reports/report.html").read_text()
    section = page.split('<section id="toy"')[1].split("</section>")[0]
    assert "A paper that nobody wrote" in section
    assert 'aria-label="Toy: an image with noise' in section
    assert "training on images with noise as large as the attack&#39;s radius" in section
    assert "Worst-case accuracy of 2 arms on digits" in section
    assert (repository / "reports/figures/toy-noise-digits.svg").exists()
    verdicts = json.loads((repository / "reports/verdicts.json").read_text())
    mine = next(verdict for verdict in verdicts if verdict["claim"] == "toy-noise")
    assert mine["dataset"] == "digits"
    assert mine["word"] != "not run"
    assert mine["effect"] is not None
    assert 'id="toy-noise"' in section
    record = json.loads((repository / "reports/records/digits/toy/0/record.json").read_text())
    assert record["settings"]["arm"]["share"] == 1.0
    assert "says" not in record["settings"]["arm"]


def dropped(pattern: str) -> object:
    return lambda text: re.sub(pattern, "", text, count=1, flags=re.M)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("toy/README.md", None, "turncoat/papers/toy/README.md is missing"),
        ("toy/claims.yaml", None, "turncoat/papers/toy/claims.yaml is missing"),
        ("toy/arms.yaml", None, "turncoat/papers/toy/arms.yaml is missing"),
        ("toy/diagram.svg.j2", None, "turncoat/papers/toy/diagram.svg.j2 is missing"),
        ("toy/method.py", None, "turncoat/papers/toy/method.py: method toy: Toy is not there"),
        ("__init__.py", dropped(', "toy"'), "turncoat/papers/toy: is not in PAPERS"),
        ("toy/__init__.py", dropped("^METHODS.*"), "toy/__init__.py: METHODS has no method named toy"),
        ("toy/arms.yaml", dropped("^    says: the same.*"), "toy/arms.yaml: arms.toy-plain.says is missing"),
        ("toy/claims.yaml", dropped("(?<=toy), toy-plain(?=])"), "toy-plain is not among arms"),
        ("toy/claims.yaml", dropped("^    measured.*"), "toy/claims.yaml: claims.0.measured: Field required"),
        ("toy/diagram.svg.j2", dropped("^.*import box.*"), "toy/diagram.svg.j2: 'box' is undefined"),
    ],
)
def test_a_missing_piece_stops_in_one_line_before_anything_trains(
    repository: Path, tmp_path: Path, file: str, change: object, said: str
) -> None:
    for name in ("stages", "turncoat"):
        shutil.copytree(repository / name, tmp_path / name)
    shutil.copy(repository / "params.yaml", tmp_path)
    path = tmp_path / "turncoat/papers" / file
    if change is None:
        path.unlink()
    else:
        text = path.read_text()
        path.write_text(change(text))  # type: ignore[operator]
        assert path.read_text() != text
    done = python(tmp_path, "-m", "stages.inputs")
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "data").exists()
