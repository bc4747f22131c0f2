"""`make mlflow`: the store from the files of a study, the same however often, and after the store is gone."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turncoat import tracking
from turncoat.errors import TurncoatError
from turncoat.tracking import paths, relay

ARM = {"method": "mart", "beta": 5.0}


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def training(arm: str, seed: int = 0) -> dict[str, Any]:
    return {
        "cell": {"dataset": "digits", "arm": arm, "seed": seed},
        "fingerprint": f"{arm}{seed}",
        "epochs": 3,
        "best_epoch": 2,
        "validation": {
            "best": {"clean": 0.9, "robust": 0.7, "n": 400},
            "last": {"clean": 0.9, "robust": 0.6, "n": 400},
        },
        "cost": {"forward": 12.0, "backward": 6.0, "images": 1200},
        "parameters": 1000,
        "settings": {"arm": ARM, "compute": {"device": "cpu"}},
    }


def history() -> list[dict[str, Any]]:
    return [{"epoch": epoch, "lr": 0.1, "loss": 1 / epoch, "kl": epoch / 7} for epoch in (1, 2, 3)]


def record(arm: str, seed: int = 0) -> dict[str, Any]:
    attacks = {"fgsm": {"correct": 800, "n": 997, "forward": 2}, "pgd-20": {"correct": 700, "n": 997, "forward": 21}}
    return {
        "cell": {"dataset": "digits", "arm": arm, "seed": seed},
        "method": "mart",
        "fingerprint": f"{arm}{seed}",
        "settings": {"arm": ARM, "suite": {"name": "quick", "images": 997}},
        "best": {
            "clean": {"correct": 960, "n": 997},
            "attacks": attacks,
            "worst": {"correct": 690, "n": 997, "attacks": ["fgsm", "pgd-20"]},
            "calibration": {"ece": 0.03, "bins": 15},
        },
        "last": {"clean": {"correct": 961, "n": 997}, "attacks": {"pgd-20": {"correct": 650, "n": 997}}},
        "flags": [{"name": "weak", "attack": None, "detail": "", "blocks": False}],
    }


PROVENANCE = {"commit": "c0ffee", "dirty": True, "device": "cpu", "record_sha256": "ff"}


@pytest.fixture
def study(project: Path, empty_store: bytes) -> Path:
    """A baseline, a cell with both its stages, a cell that was not evaluated, a report."""
    (project / "mlflow.db").write_bytes(empty_store)
    for arm in ("baseline", "mart", "pgd"):
        write(project / f"models/digits/{arm}/0/training.json", training(arm))
        write(project / f"models/digits/{arm}/0/history.json", history())
    write(project / "reports/records/digits/mart/0/record.json", record("mart"))
    write(project / "reports/records/digits/mart/0/provenance.json", PROVENANCE)
    write(project / "reports/times/digits/mart/0.json", {"seconds": {"training": 12.34}})
    write(project / "reports/summary.json", {"digits": {}})
    words = {"mart": ("inconclusive", False), "rat": ("direction holds", True), "reverse": ("not run", True)}
    told = [
        {"paper": p, "claim": f"{p}-x", "dataset": "digits", "word": w, "our_reading": r} for p, (w, r) in words.items()
    ]
    write(project / "reports/verdicts.json", told)
    write(project / "reports/figures/tradeoff.svg", "<svg/>")
    return project


def make_mlflow() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stages.mlflow"], capture_output=True, text=True, timeout=120)


@pytest.fixture
def rebuild(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """`make mlflow` within this process, which has paid for importing MLflow already. Returns what it says."""

    def stage() -> str:
        from stages import mlflow

        monkeypatch.setattr(sys, "argv", ["mlflow"])
        mlflow.main()
        return capsys.readouterr().out

    return stage


def content(project: Path) -> tuple[Any, ...]:
    """All that the store says of its active runs, but for MLflow's own tags."""
    with sqlite3.connect(project / "mlflow.db") as connection:
        tables = (
            "select run_uuid, name, status, start_time, end_time from runs where lifecycle_stage = 'active'",
            "select run_uuid, key, step, value, timestamp from metrics",
            "select run_uuid, key, value from params",
            "select run_uuid, key, value from tags",
        )
        return tuple(sorted(connection.execute(query).fetchall()) for query in tables)


def values(project: Path, name: str) -> dict[tuple[str, int], float]:
    query = "select key, step, value from metrics join runs using (run_uuid) where name = ?"
    with sqlite3.connect(project / "mlflow.db") as connection:
        rows = connection.execute(query, (name,)).fetchall()
    points = {(key, step): value for key, step, value in rows}
    assert len(points) == len(rows), "a point stands twice"
    return points


def named(table: str, project: Path, name: str) -> dict[str, str]:
    query = f"select key, value from {table} join runs using (run_uuid) where name = ?"
    with sqlite3.connect(project / "mlflow.db") as connection:
        return dict(connection.execute(query, (name,)).fetchall())


def test_what_arms_build_on_is_told_too(study: Path, rebuild: Callable[[], str]) -> None:
    folder = study / "models/digits/pretrained/0/unet"
    write(folder / "training.json", training("pretrained-unet"))
    write(folder / "history.json", history())
    assert "5 runs told" in rebuild()
    assert values(study, "digits/pretrained-unet/0")["loss", 3] == pytest.approx(1 / 3)
    assert "pretrain@digits-0" in named("tags", study, "digits/pretrained-unet/0").values()
    assert "finetune@digits-pgd-0" in named("tags", study, "digits/pgd/0").values()


def test_everything_is_told_and_twice_is_once(study: Path, rebuild: Callable[[], str]) -> None:
    assert "4 runs told from their files, 4 of all these were new" in rebuild()
    told = content(study)
    assert sorted(run[1:3] for run in told[0]) == [
        ("digits/baseline/0", "FINISHED"),
        ("digits/mart/0", "FINISHED"),
        ("digits/pgd/0", "FINISHED"),
        ("report", "FINISHED"),
    ]
    tags = named("tags", study, "report")
    assert {name: value for name, value in tags.items() if name.startswith("verdict.")} == {
        "verdict.mart.mart-x.digits": "inconclusive",
        "verdict.rat.rat-x.digits": "direction holds, under our reading",
        "verdict.reverse.reverse-x.digits": "not run",
    }
    points = values(study, "digits/mart/0")
    assert {at: value for at, value in points.items() if at[1]} == {
        (name, row["epoch"]): row[name] for row in history() for name in ("lr", "loss", "kl")
    }
    assert {name: value for (name, step), value in points.items() if not step} == {
        "test/clean": 960 / 997,
        "test/fgsm": 800 / 997,
        "test/pgd-20": 700 / 997,
        "test/worst": 690 / 997,
        "test/ece": 0.03,
        "test_last/clean": 961 / 997,
        "test_last/pgd-20": 650 / 997,
        "validation/best/clean": 0.9,
        "validation/best/robust": 0.7,
        "validation/last/clean": 0.9,
        "validation/last/robust": 0.6,
        "best_epoch": 2,
        "parameters": 1000,
        "cost/training/forward": 12,
        "cost/training/backward": 6,
    }
    assert named("params", study, "digits/mart/0") == {
        "arm.method": "mart",
        "arm.beta": "5.0",
        "compute.device": "cpu",
        "suite.name": "quick",
        "suite.images": "997",
    }
    tags = named("tags", study, "digits/mart/0")
    wanted = {
        "cell": "digits/mart/0",
        "fingerprint": "mart0",
        "superseded": "false",
        "stage.finetune": "finetune@digits-mart-0",
        "stage.evaluate": "evaluate@digits-mart-0",
        "commit": "c0ffee",
        "mlflow.source.git.commit": "c0ffee",
        "dirty": "True",
        "record_sha256": "ff",
        "seconds.training": "12.3",
        "flags": "weak",
        "method": "mart",
    }
    assert {name: tags.get(name) for name in wanted} == wanted
    assert named("tags", study, "digits/baseline/0")["stage.baseline"] == "baseline@digits-0"
    shown = sorted(path.name for path in (study / "mlartifacts").rglob("*.*"))
    assert shown == ["summary.json", "tradeoff.svg", "verdicts.json"]

    second = make_mlflow()  # a process without any memory of the first
    assert second.returncode == 0, second.stderr
    assert "0 of all these were new" in second.stdout
    assert content(study) == told
    assert not list(paths.folder().glob("*.jsonl")) + list(paths.folder().glob("*.files"))


def test_what_the_stages_said_live_stays(study: Path, rebuild: Callable[[], str]) -> None:
    mart = training("mart")
    name, stage = "digits/mart/0", "finetune@digits-mart-0"
    with tracking.open(name, mart["fingerprint"], stage, mart["settings"]) as tracker:
        for row in history():
            tracker.log(row["epoch"], row)
        tracker.final(tracking.summary(mart))
    tracking.log_record(record("mart"), PROVENANCE, stage="evaluate@digits-mart-0")
    tracking.log_report("reports", stage="report")
    assert tracking.flush(120)
    live = content(study)
    assert "2 of all these were new" in rebuild(), "the baseline, and the cell that was not told live"
    told = content(study)
    assert all(set(before) <= set(after) for before, after in zip(live, told, strict=True))
    assert {run[1] for run in set(told[0]) - set(live[0])} == {"digits/baseline/0", "digits/pgd/0"}


def test_the_files_decide_which_run_is_current(study: Path, rebuild: Callable[[], str]) -> None:
    paths.folder().mkdir(parents=True)
    with relay.take_over(paths.folder()), tracking.open("digits/pgd/0", "an experiment, later undone") as tracker:
        tracker.log(1, {"loss": 9})
    assert "1 waiting files sent" in rebuild()
    with sqlite3.connect(study / "mlflow.db") as connection:
        query = (
            "select f.value, s.value from tags f join tags s using (run_uuid) join runs using (run_uuid) "
            "where f.key = 'fingerprint' and s.key = 'superseded' and name = 'digits/pgd/0'"
        )
        assert dict(connection.execute(query)) == {"pgd0": "false", "an experiment, later undone": "true"}


def test_broken_files_are_named_and_the_rest_is_told(study: Path, rebuild: Callable[[], str]) -> None:
    (study / "models/digits/pgd/0/history.json").write_text('[{"epoch": 1')
    write(study / "reports/records/digits/mart/0/record.json", {"cell": {"dataset": "digits"}})
    with pytest.raises(TurncoatError) as raised:
        rebuild()
    assert "models/digits/pgd/0/history.json: not valid JSON" in str(raised.value)
    assert "reports/records/digits/mart/0/record.json: not in the form" in str(raised.value)
    assert sorted(run[1] for run in content(study)[0]) == ["digits/baseline/0", "digits/mart/0", "report"]


def test_off_refuses(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNCOAT_TRACKING", "off")
    made = make_mlflow()
    assert made.returncode == 2
    assert made.stderr.startswith("TURNCOAT_TRACKING=off")


def test_a_note_left_by_a_crash_does_not_send_forwarders_away(study: Path) -> None:
    paths.folder().mkdir(parents=True)
    (paths.folder() / "stop").touch()
    assert relay.asked_to_leave(paths.folder())
    os.utime(paths.folder() / "stop", (0, 0))
    assert not relay.asked_to_leave(paths.folder())


@pytest.mark.slow
def test_after_the_store_is_gone(study: Path) -> None:
    assert make_mlflow().returncode == 0
    before = content(study)
    (study / "mlflow.db").unlink()
    assert make_mlflow().returncode == 0
    after = content(study)
    assert [sorted(row[1:] for row in table) for table in after] == [
        sorted(row[1:] for row in table) for table in before
    ]


@pytest.mark.slow
def test_it_takes_the_place_of_a_forwarder_at_work(study: Path) -> None:
    with tracking.open("digits/trades/0", "live") as tracker:
        tracker.log(1, {"loss": 1})
        until_seen(study, 1)
        made = make_mlflow()
        assert made.returncode == 0, made.stderr
        tracker.log(2, {"loss": 0.5})
    assert tracking.flush(120)
    assert values(study, "digits/trades/0") == {("loss", 1): 1.0, ("loss", 2): 0.5}
    assert len(content(study)[0]) == 5


def until_seen(project: Path, count: int) -> None:
    until = time.monotonic() + 120
    while len(values(project, "digits/trades/0")) < count:
        assert time.monotonic() < until
        time.sleep(0.2)
