"""The whole study in small, through DVC: what runs, what runs again, what comes out the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages.inputs import modules
from stages.pipeline import cells
from tests.defaults import DEFAULTS
from turncoat.closure import LISTS, closure
from turncoat.files import sha256
from turncoat.papers.index import module_of
from turncoat.reading import read_yaml
from turncoat.settings import Settings, merged, validate
from turncoat.tuning import SUFFIX

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {
    "TURNCOAT_TRACKING": "off",
    "OMP_NUM_THREADS": "1",
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


def shell(folder, *command, ok=True):
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def ran(output):
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def edit(folder, change):
    params = read_yaml(folder / "params.yaml")
    change(params)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def shrink(params):
    params["study"] |= {"datasets": ["digits"], "arms": ["standard", "mart"], "seeds": [0], "suite": "tiny"}
    params["universal"] = {"sgd": {"form": "sgd", "passes": 1}}
    params["study"]["pretrained"] = []
    digits = params["datasets"]["digits"]
    digits["data"] |= {"train": 100, "validation": 50, "test": 50}
    digits["training"] |= {"epochs": 2}
    digits["finetuning"] |= {"epochs": 1}
    params.setdefault("suites", {})["tiny"] = {
        "images": None,
        "attacks": {
            "fgsm": {"attack": "fgsm"},
            "pgd-20": {"attack": "pgd", "steps": 5},
            "transfer-pgd-20": {"attack": "transfer", "stored": "pgd-20"},
        },
        "radii": [1.0],
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished tiny study in a plain folder that is no git repository."""
    folder = tmp_path_factory.mktemp("study")
    for name in ("stages", "turncoat", ".dvc"):
        skipped = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    for path in (DEFAULTS, *(ROOT / name for name in ("dvc.yaml", ".dvcignore", ".gitignore"))):
        shutil.copy(path, folder / path.name)
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    edit(folder, shrink)
    shell(folder, sys.executable, "-m", "stages.repro")
    return folder


def test_a_finished_study_has_its_files_and_nothing_left_to_do(study):
    summary = json.loads((study / "reports/summary.json").read_text())
    assert list(summary["digits"]) == ["standard", "mart"]
    assert summary["digits"]["mart"]["n"] == 50
    assert (study / "reports/report.html").stat().st_size > 10_000
    assert "up to date" in shell(study, "dvc", "status")
    assert ran(shell(study, "dvc", "repro")) == []
    assert not [path for path in (study / ".scratch").iterdir() if len(path.name) == 32], "a finished cell's scratch"


def test_a_record_says_what_was_measured_and_how(study):
    folder = study / "reports/records/digits/mart/0"
    record = json.loads((folder / "record.json").read_text())
    assert record["cell"] == {"dataset": "digits", "arm": "mart", "seed": 0}
    best = record["best"]
    assert best["worst"]["correct"] <= min(attack["correct"] for attack in best["attacks"].values())
    assert best["attacks"]["pgd-20"]["correct"] <= best["clean"]["correct"] <= 50
    assert record["settings"]["arm"]["beta"] == 5.0
    assert record["examples"]["sha256"] == sha256(folder / "examples.npz")
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["record_sha256"] == sha256(folder / "record.json")
    assert provenance["commit"] is None, "there is no git here"


def test_the_same_seed_gives_the_same_bytes(study):
    names = [f"models/digits/mart/0/{name}.safetensors" for name in ("best", "last")]
    names += ["models/digits/mart/0/training.json", "reports/records/digits/mart/0/record.json"]
    before = {name: sha256(study / name) for name in names}
    again = shell(study, "dvc", "repro", "-f", "-s", "finetune@digits-mart-0", "evaluate@digits-mart-0")
    assert ran(again) == ["finetune@digits-mart-0", "evaluate@digits-mart-0"]
    assert {name: sha256(study / name) for name in names} == before


def test_the_analysis_is_of_the_studys_own_methods_and_the_same_each_time(study, tmp_path):
    folder = tmp_path / "analysed"
    shutil.copytree(study, folder, symlinks=True)
    told = json.loads((folder / "reports/analysis/digits/analysis.json").read_text())
    assert set(told) == {"dataset", "seed", "attack", "weights"}, "no paper of the three has an arm here"
    weights = {arm: sha256(folder / f"models/digits/{arm}/0/best.safetensors") for arm in ("standard", "mart")}
    assert told["weights"] == weights
    edit(folder, lambda params: params["study"].update(arms=["standard", "rat"]))
    for stage in ("finetune", "evaluate"):
        shell(folder, sys.executable, "-m", f"stages.{stage}", "--dataset", "digits", "--arm", "rat", "--seed", "0")
    sums = []
    for _ in range(2):
        shell(folder, sys.executable, "-m", "stages.analyse", "--dataset", "digits")
        sums.append([sha256(path) for path in sorted((folder / "reports/analysis/digits").iterdir())])
    assert sums[0] == sums[1]
    told = json.loads((folder / "reports/analysis/digits/analysis.json").read_text())
    assert told["rat"]["arm"] == "rat"
    assert list(told["rat"]["fgsm"]) == ["standard", "rat"]
    shell(folder, sys.executable, "-m", "stages.report")
    assert (folder / "reports/figures/rat-matrices-digits.svg").exists()
    assert not list((folder / "reports/figures").glob("advamd-*"))


MART, RAT = (module_of(method).replace(".", "/") + ".py" for method in ("mart", "rat"))


def test_a_comment_re_runs_nothing_and_code_what_rests_on_it(study, tmp_path):
    folder = tmp_path / "edited"
    shutil.copytree(study, folder, symlinks=True)

    def left(edit, *files):
        """The cells that an edit of the files makes stale, by DVC, beside those that edits before have."""
        for file in files:
            path = folder / file
            path.write_text(edit(path.read_text()))
        assert ran(shell(folder, "dvc", "repro", "inputs")) == ["inputs"]
        return set(json.loads(shell(folder, "dvc", "status", "--json")))

    def comment(text):
        return text.replace("\n\n\n", "\n\n\n# a comment\n\n\n") + "# and one more\n"

    def code(text):
        return text + "\nEDITED = True\n"

    everywhere = (MART, "turncoat/evaluation/evaluate.py", "turncoat/reporting/page.py", "stages/training.py")
    assert left(comment, *everywhere) == set()
    assert left(code, "turncoat/reporting/style.py", RAT) == {"report"}, "no arm here is RAT's"
    assert left(code, MART) == {"report", "finetune@digits-mart-0"}
    assert left(code, "turncoat/training/loop.py") == {
        *("report", "finetune@digits-mart-0", "finetune@digits-standard-0", "baseline@digits-0", "pretrain@digits-0")
    }


def files_behind(change=lambda params: None):
    """Cells of the study of params.yaml: the files of the repository that each rests on."""
    params = merged(DEFAULTS).values
    change(params)
    settings = validate(Settings, params, "")
    found = {}
    for cell in cells(params, ROOT / "dvc.yaml").values():
        code = [dep for dep in cell.deps if dep.startswith("data/code/")]
        assert len(code) == (cell.stage != "inputs"), f"{cell} rests on no checksum of its code"
        found[cell.name] = {path.relative_to(ROOT).as_posix() for path in closure(modules(cell, settings))}
    return found


def test_an_arm_rests_on_its_own_method_and_its_evaluation_on_none():
    behind = files_behind(lambda params: params["study"].update(arms=["mart", "rat", "standard"], seeds=[0]))
    assert {name for name, files in behind.items() if RAT in files} == {"finetune@digits-rat-0"}
    assert {name for name, files in behind.items() if MART in files} == {"finetune@digits-mart-0"}
    evaluated = behind["evaluate@digits-rat-0"]
    assert not {file for file in evaluated if file.startswith(("turncoat/methods", "turncoat/papers"))}
    assert {"stages/evaluate.py", "turncoat/evaluation/second_look.py", "turncoat/models/weights.py"} <= evaluated
    assert "turncoat/training/loop.py" not in evaluated
    assert {name.split("@")[0] for name, files in behind.items() if "turncoat/reporting/style.py" in files} == {
        *("inputs", "report")  # which checks that a report can be made, before anything trains
    }
    for name, files in behind.items():
        assert ("turncoat/data/archives.py" in files) == name.startswith("download")


def test_every_file_of_the_library_is_behind_some_checksum():
    """Not those that no result rests on: tracking, checks of finished files, kept studies, the command line."""
    apart = (
        "integrity.py",
        "__main__.py",
        "reporting/kept.py",
        "reporting/atlas.py",
        "reporting/side_by_side.py",
        *LISTS,
    )
    apart += tuple(f"evaluation/{name}.py" for name in ("brought", "model_info", "written", "dense_command"))

    def everything(params):
        tuned = [arm for arm in params["arms"] if arm.endswith(SUFFIX)]
        params["study"]["tuning"]["arms"] = tuned
        params["study"]["arms"] = [arm for arm in params["arms"] if arm not in tuned]
        params["study"]["pretrained"] = list(params["pretrained"])
        params["study"]["dense"] = {"datasets": ["scenes-masks"], "arms": ["standard", "advamd"], "suite": "dense"}

    named = set().union(*files_behind(everything).values())
    for file in (ROOT / "turncoat").rglob("*.py"):
        path = file.relative_to(ROOT).as_posix()
        if path.startswith("turncoat/tracking") or path.endswith(apart):
            continue
        assert path in named, path


def test_without_dvc_and_in_slices_it_is_the_same_study(study, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("stages", "turncoat"):
        shutil.copytree(study / name, folder / name)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(study / name, folder)
    bare = (sys.executable, "-m", "stages.bare", "--minutes")
    while subprocess.run((*bare, "0.4"), cwd=folder, env=ENVIRONMENT, capture_output=True, check=False).returncode == 3:
        pass
    assert shell(folder, *bare, "1").strip() == "all cells are done"
    names = [f"reports/records/digits/{arm}/0/record.json" for arm in ("standard", "mart")]
    assert [sha256(folder / name) for name in names] == [sha256(study / name) for name in names]
    for name in (".dvc", ".dvcignore"):
        (shutil.copytree if (study / name).is_dir() else shutil.copy)(study / name, folder / name)
    shell(folder, "dvc", "repro", "inputs")
    shell(folder, "dvc", "commit", "--force", "download", "baseline", "pretrain", "perturb", "finetune", "evaluate")
    assert set(ran(shell(folder, "dvc", "repro"))) <= {"analyse@digits", "report"}


@pytest.mark.fault(15, "arms.mart.betta through `dvc repro` and `make repro`", "stops, suggests beta")
@pytest.mark.slow
def test_one_after_another_it_is_the_same_study(study, tmp_path):
    """What `make repro` runs side by side, `dvc repro` runs in turn: the same results, hence the same dvc.lock."""
    folder = shutil.copytree(study, tmp_path / "in-turn", symlinks=True)
    for made in ("data", "models", "reports", "dvc.lock", ".dvc/cache", ".dvc/tmp", ".scratch"):
        path = folder / made
        path.unlink() if path.is_file() else shutil.rmtree(path)
    shell(folder, "dvc", "repro")
    assert (folder / "reports/summary.json").read_bytes() == (study / "reports/summary.json").read_bytes()
    # DVC enters a stage when it is done, so the order alone may differ
    assert yaml.safe_load((folder / "dvc.lock").read_text()) == yaml.safe_load((study / "dvc.lock").read_text())


def test_a_wrong_setting_stops_with_its_name(study, tmp_path):
    shutil.copytree(study, tmp_path / "copy", symlinks=True)
    before = {path: sha256(path) for path in (tmp_path / "copy/data").rglob("*") if path.is_file()}
    edit(tmp_path / "copy", lambda params: params["arms"]["mart"].update(betta=6))
    said = shell(tmp_path / "copy", "dvc", "repro", ok=False)
    assert "unknown arms.mart.betta; did you mean beta?" in said
    assert ran(said) == ["inputs"]
    said = shell(tmp_path / "copy", sys.executable, "-m", "stages.repro", ok=False)
    assert "unknown arms.mart.betta; did you mean beta?" in said
    after = {path: sha256(path) for path in (tmp_path / "copy/data").rglob("*") if path.is_file()}
    assert after == before, "a refusal leaves what other stages depend on as it was"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda params: params["arms"]["trades"].update(beta=-1.0), "arms.trades.beta: Input should be greater"),
        (lambda params: params["perturbations"].update(x={"attack": "pgdd"}), "perturbations.x.attack: 'pgdd' is not"),
        (lambda params: params["universal"].update(x={"form": "sgdd"}), "universal.x.form: Input should be"),
        (lambda params: params["study"].update(arms=["mart-beta-99"]), "mart-beta-99 is not defined; did you mean"),
    ],
)
def test_a_wrong_setting_anywhere_stops_at_inputs_in_one_line(change, said, tmp_path, monkeypatch):
    params = read_yaml(DEFAULTS)
    change(params)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(ROOT))
    told = shell(tmp_path, sys.executable, "-m", "stages.inputs", ok=False)
    assert said in told
    assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_an_empty_list_is_named_by_dvc_itself(study, tmp_path):
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(study / name, tmp_path)
    shutil.copytree(study / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    shutil.copy(study / "params.yaml", tmp_path)
    edit(tmp_path, lambda params: params["study"].update(seeds=[]))
    said = shell(tmp_path, "dvc", "repro", ok=False)
    assert "study.seeds" in said
    assert "unexpected error" not in said


@pytest.mark.fault(27, "`dvc exp run` with an arm less", "the report holds the other alone")
def test_an_edited_arm_re_runs_its_cells_and_a_dropped_one_leaves_the_report(study, tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(study, folder, symlinks=True)
    (folder / ".dvc/config.local").unlink()
    for command in ("git init -q", "git add -A", "git -c user.name=a -c user.email=a@b commit -qm study"):
        shell(folder, *command.split())
    page = (folder / "reports/report.html").read_bytes()
    output = shell(folder, "dvc", "exp", "run", "-S", "arms.mart.beta=6")
    assert ran(output) == ["inputs", "finetune@digits-mart-0", "evaluate@digits-mart-0", "analyse@digits", "report"]
    record = json.loads((folder / "reports/records/digits/mart/0/record.json").read_text())
    assert record["settings"]["arm"]["beta"] == 6
    header = shell(folder, "dvc", "exp", "show", "--only-changed", "--csv").splitlines()[0].split(",")
    assert "arms.mart.beta" in header
    assert len(header) <= 15, header
    assert not [name for name in header if "resolved" in name or "says" in name], "no parameters but a person's own"
    assert max(len(line) for line in shell(folder, "dvc", "metrics", "show").splitlines()) <= 120
    shell(folder, "git", "checkout", "-q", "dvc.lock", "params.yaml")
    shell(folder, "dvc", "checkout")
    assert (folder / "reports/report.html").read_bytes() == page, "what was there before comes back"
    assert shell(folder, "git", "status", "--porcelain") == ""
    in_its_file = "turncoat/papers/mart/arms.yaml:arms.mart-beta-1.beta=2.5"
    output = shell(folder, "dvc", "exp", "run", "-S", "study.arms=[standard,mart-beta-1]", "-S", in_its_file)
    record = json.loads((folder / "reports/records/digits/mart-beta-1/0/record.json").read_text())
    assert record["settings"]["arm"]["beta"] == 2.5
    output = shell(folder, "dvc", "exp", "run", "-S", "study.arms=[standard]")
    assert ran(output) == ["inputs", "analyse@digits", "report"]
    assert list(json.loads((folder / "reports/summary.json").read_text())["digits"]) == ["standard"]


COMMANDS = [plan["cmd"].split() for plan in read_yaml(ROOT / "dvc.yaml")["stages"].values()]
STAGES = [*dict.fromkeys(command[2].removeprefix("stages.") for command in COMMANDS), "repro", "bare"]


@pytest.mark.parametrize("stage", STAGES)
def test_help_says_what_a_stage_does_and_imports_nothing_heavy(stage):
    code = (
        "import runpy, sys, time\n"
        f"sys.argv = ['stages.{stage}', '--help']\n"
        "try: runpy.run_module(sys.argv[0], run_name='__main__')\n"
        "finally: print(sorted({'torch', 'mlflow', 'matplotlib', 'sklearn', 'torchvision'} & set(sys.modules)))\n"
    )
    output = shell(ROOT, sys.executable, "-c", code)
    assert output.rstrip().endswith("[]")
    if stage in ("baseline", "perturb", "pretrain", "trial", "finetune", "evaluate"):
        assert "--dataset DATASET" in output
        assert "--seed SEED" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["finetune", "--dataset", "digit", "--arm", "mart", "--seed", "0"], "--dataset digit: not defined"),
        (["finetune", "--dataset", "digits", "--arm", "mert", "--seed", "0"], "mert is not defined; did you mean mart"),
        (["baseline", "--dataset", "digits", "--seed", "-1"], "'-1' is not a whole number from 0"),
        (["evaluate", "--dataset", "digits", "--arm", "mart"], "--seed"),
    ],
)
@pytest.mark.fault(17, "names on the command line that params.yaml does not define", "stops, lists what there is")
def test_wrong_arguments_are_named(arguments, said, tmp_path, monkeypatch):
    stage, *rest = arguments
    shutil.copy(DEFAULTS, tmp_path)
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(ROOT))
    assert said in shell(tmp_path, sys.executable, "-m", f"stages.{stage}", *rest, ok=False)
