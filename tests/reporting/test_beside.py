"""Networks of no arm beside the study's: shown where arms are shown, refused where they met something else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reporting import synthetic
from turncoat.errors import TurncoatError
from turncoat.files import sha256, write_json
from turncoat.papers import chapters
from turncoat.reporting import beside, kept, report
from turncoat.reporting.cell import Cell
from turncoat.reporting.tables import missing_table
from turncoat.reporting.verdicts import judge_all
from turncoat.settings import Settings, validate

ARMS = ["standard", "pgd", "mart"]
COMMAND = "python -m turncoat.evaluation --model net.py:build --record records/theirs"
THEIRS = Cell("cifar10", "theirs", 7)


def settings(*folders: str) -> Settings:
    values = synthetic.params(arms=ARMS, seeds=(0, 1), datasets=("cifar10",))
    values["study"]["beside"] = list(folders)
    return validate(Settings, values, "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A study of two seeds, and a record that the command line wrote of a network of somebody's own."""
    synthetic.write(tmp_path, seeds=(0, 1), datasets=("cifar10",), n=60)
    shutil.copytree(tmp_path / "reports/records/cifar10/pgd/0", tmp_path / "records/theirs")

    def brought(record: dict[str, Any]) -> None:
        record |= {"method": "brought", "command": COMMAND, "validation": {}}
        record["cell"] |= {"arm": "theirs", "seed": 7}
        record["settings"]["arm"] = {"method": "brought", "network": "net.py:build", "weights": "w.pth"}
        record["last"]["attacks"] = {}
        record["cost"]["training"] = {"images": 0, "forward": 0.0, "backward": 0.0}

    edit(tmp_path, brought)
    return tmp_path


def edit(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "records/theirs/record.json"
    record = json.loads(path.read_text())
    change(record)
    write_json(path, record)


def test_it_stands_in_tables_page_and_files_with_the_command_that_made_it(root: Path) -> None:
    alone = judge_all(beside.load(settings(), synthetic.resolve, root), [one.paper for one in chapters.load()])
    study, verdicts = report.build(settings("records/theirs"), synthetic.resolve, chapters.load(), root)
    assert verdicts == alone  # no claim is about it
    assert THEIRS in study.records
    reports = root / "reports"
    rows = (reports / "tables/main-cifar10.csv").read_text().splitlines()
    mine = next(row for row in rows if row.startswith("theirs,"))
    pgd = json.loads((root / "reports/records/cifar10/pgd/0/record.json").read_text())["best"]["attacks"]["pgd-20"]
    assert f"{100 * pgd['correct'] / 60:.1f} ±" in mine
    assert json.loads((reports / "summary.json").read_text())["cifar10"]["theirs"]["seeds"] == 1
    page = (reports / "report.html").read_text()
    assert COMMAND in page
    assert "records/theirs/record.json#best.attacks.pgd-20" in page
    assert "finetune@cifar10-theirs" not in page
    info = json.loads((reports / "robustbench/cifar10/Linf/theirs-7.json").read_text())
    assert info["footnote"] == f"Re-run: {COMMAND}"
    assert study.settings.says["theirs"] == "not of this study: net.py:build with w.pth"


def other_images(root: Path) -> None:
    path = root / "records/theirs/examples.npz"
    arrays = dict(np.load(path))
    arrays["label"] = arrays["label"][::-1]
    np.savez(path, **arrays)
    edit(root, lambda record: record["examples"].update(sha256=sha256(path)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda root: edit(root, lambda record: record["settings"]["suite"]["attacks"].pop("fgsm")),
            r"other settings: suites\.quick\.attacks\.fgsm",
        ),
        (
            lambda root: edit(root, lambda record: record["settings"]["dataset"]["threat"].update(epsilon=0.1)),
            r"other settings: datasets\.cifar10\.threat\.epsilon",
        ),
        (
            lambda root: edit(root, lambda record: record["cell"].update(dataset="mnist")),
            "of mnist, which study.datasets",
        ),
        (other_images, "other test images than cifar10/standard/0"),
        (lambda root: np.savez(root / "records/theirs/examples.npz", label=[1]), "not the file that its record names"),
    ],
)
def test_one_that_met_something_else_is_not_run_and_says_why(
    root: Path, change: Callable[[Path], None], why: str
) -> None:
    change(root)
    study = beside.load(settings("records/theirs"), synthetic.resolve, root)
    assert len(study.records) == len(ARMS) * 2
    (said,) = study.missing.values()
    assert why.replace("\\", "") in said
    assert "theirs" in missing_table(study).csv()


def test_what_is_not_there_is_told_with_the_command_that_makes_it(root: Path) -> None:
    with pytest.raises(TurncoatError, match=r"records/none holds no record\.json; `python -m turncoat\.evaluation .*"):
        beside.load(settings("records/none"), synthetic.resolve, root)
    assert beside.checksums(settings("records/theirs"), root) == {
        "records/theirs": sha256(root / "records/theirs/record.json")
    }


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("/somewhere/theirs", "a folder below this one wanted"),
        ("../theirs", "a folder below this one wanted"),
        ("reports/theirs", "outside data and reports"),
        ("records/mart", "arms.mart has the name of this folder"),
    ],
)
def test_a_folder_that_cannot_be_shown_is_refused_at_load(folder: str, says: str) -> None:
    with pytest.raises(TurncoatError, match=says):
        settings(folder)


def test_it_is_kept_with_the_study(root: Path, tmp_path: Path) -> None:
    study = beside.load(settings("records/theirs"), synthetic.resolve, root)
    packed = kept.packed(study)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / kept.RECORDS).write_bytes(packed)
    kept.unpack(tmp_path / "kept", tmp_path / "again")
    again = beside.load(settings("records/theirs"), synthetic.resolve, tmp_path / "again", kept=True)
    assert again.records[THEIRS] == study.records[THEIRS]
