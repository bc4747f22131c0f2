"""What the stages see: rows on disk at once, nothing slow, nothing that can stop a training."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from turncoat import tracking
from turncoat.errors import TurncoatError
from turncoat.tracking import paths, relay, spool


@pytest.fixture
def quiet(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose forwarder's place is taken: rows stay where they are."""
    paths.folder().mkdir(parents=True)
    with relay.take_over(paths.folder()):
        yield project


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_importing_it_imports_nothing_slow() -> None:
    slow = ("mlflow", "torch", "numpy", "pydantic")
    code = f"import sys, turncoat.tracking; print([name for name in {slow} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_rows_are_whole_and_in_order(quiet: Path) -> None:
    with tracking.open(
        "digits/mart/0", "abc", "finetune@digits-mart-0", {"arm": {"beta": 5.0, "on": None}}, {"commit": "c0"}
    ) as tracker:
        tracker.log(1, {"epoch": 1, "loss": 0.5, "parts": {"kl": 1}, "validation_robust": None, "note": "text"})
        tracker.final({"test": {"clean": 0.96}, "test/worst": 0.5})
        tracker.tag({"record_sha256": "ff", "dirty": False, "none": None})
    [path] = paths.spools(paths.folder())
    opened, logged, final, tags, closed = rows(path)
    assert opened["params"] == {"arm.beta": 5.0, "arm.on": None}
    assert opened["tags"] == {
        "stage.finetune": "finetune@digits-mart-0",
        "dataset": "digits",
        "arm": "mart",
        "seed": "0",
        "commit": "c0",
    }
    assert (logged["step"], logged["metrics"]) == (1, {"loss": 0.5, "parts/kl": 1.0})
    assert final["final"] == {"test/clean": 0.96, "test/worst": 0.5}
    assert tags["tags"] == {"record_sha256": "ff", "dirty": "False"}
    assert closed["close"] == "FINISHED"
    assert abs(opened["time"] / 1000 - time.time()) < 60


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_an_exception_ends_the_run_and_passes_through(quiet: Path, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), tracking.open("digits/mart/0", "abc"):
        raise error
    [path] = paths.spools(paths.folder())
    assert rows(path)[-1]["close"] == status


def test_each_row_is_on_disk_before_a_kill(quiet: Path) -> None:
    code = (
        "import os, signal\n"
        "from turncoat import tracking\n"
        "tracker = tracking.open('digits/mart/0', 'abc')\n"
        "for epoch in range(1, 6): tracker.log(epoch, {'loss': epoch})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    [path] = paths.spools(paths.folder())
    assert [row["step"] for row in rows(path)[1:]] == [1, 2, 3, 4, 5]
    assert not paths.is_locked(path)


def test_a_row_costs_next_to_nothing(quiet: Path) -> None:
    values = {f"measure_{i}": i / 7 for i in range(10)}
    with tracking.open("digits/mart/0", "abc") as tracker:
        begin = time.perf_counter()
        for epoch in range(1000):
            tracker.log(epoch, values)
        assert time.perf_counter() - begin < 2  # 0.03 s on a quiet machine


def test_off_leaves_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNCOAT_TRACKING", "off")
    with tracking.open("digits/mart/0", "abc", settings={"a": 1}) as tracker:
        tracker.log(1, {"loss": 0.5})
        tracker.final({"test/clean": 1})
        tracker.tag({"a": 1})
        tracker.artifact(__file__)
    assert tracking.flush()
    assert list(project.iterdir()) == []


def test_another_word_than_on_or_off_stops(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNCOAT_TRACKING", "of")
    with pytest.raises(TurncoatError, match="TURNCOAT_TRACKING=of"):
        tracking.open("digits/mart/0", "abc")


def test_a_full_disk_costs_one_warning(quiet: Path) -> None:
    code = (
        "import resource\n"
        "from turncoat import tracking\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "with tracking.open('digits/mart/0', 'abc') as tracker:\n"
        "    for epoch in range(1000): tracker.log(epoch, {'loss': epoch})\n"
        "print('trained')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "trained\n"
    assert ran.stderr.count("MLflow: rows cannot be kept") == 1, ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr


def test_a_folder_that_cannot_be_made_costs_a_warning(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / ".scratch").write_text("a file where the folder should be")
    with tracking.open("digits/mart/0", "abc") as tracker:
        tracker.log(1, {"loss": 1})
        tracker.artifact(__file__)
    assert "MLflow: rows cannot be kept" in capfd.readouterr().err


def test_artifacts_are_copied_at_once(quiet: Path) -> None:
    (quiet / "figures").mkdir()
    (quiet / "figures" / "tradeoff.svg").write_text("<svg/>")
    (quiet / "table.csv").write_text("a,b")
    with tracking.open("report", "abc") as tracker:
        tracker.artifact("figures")
        tracker.artifact("table.csv", "tables")
        tracker.artifact("missing.csv")
        (quiet / "figures" / "tradeoff.svg").unlink()
    [path] = paths.spools(paths.folder())
    assert [(row["artifact"], row["folder"]) for row in rows(path) if "artifact" in row] == [
        ("figures", None),
        ("tables/table.csv", "tables"),
    ]
    assert (path.with_suffix(".files") / "figures" / "tradeoff.svg").read_text() == "<svg/>"


def test_the_store_is_addressed_through_dvc_root(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.destination().startswith("sqlite:////")
    assert "#" not in paths.destination()
    assert paths.database(paths.destination()) == project / "mlflow.db"
    main = project / "main"
    main.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(main))
    assert paths.database(paths.destination()) == main / "mlflow.db"
    assert paths.folder().parent == main / ".scratch" / "tracking"
    local = paths.folder()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@server:5000")
    assert paths.destination() == "http://me:secret@server:5000"
    assert paths.folder() != local
    assert "secret" not in str(paths.folder())
    assert paths.without_password(f"at {paths.destination()}/api") == "at http://***@server:5000/api"


def test_numbers_of_tensors_and_arrays(quiet: Path) -> None:
    import numpy as np

    assert spool.numbers(
        {"a": np.float32(0.5), "b": np.array(2), "c": True, "d": [1, 2], "e": {"f": None, "g": 3}}
    ) == {
        "a": 0.5,
        "b": 2.0,
        "c": 1.0,
        "e/g": 3.0,
    }


def test_a_forwarder_that_cannot_work_is_told_of(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = project / "broken" / "mlflow"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('this MLflow is broken')")
    start = os.environ["PYTHONPATH"]
    monkeypatch.setenv("PYTHONPATH", f"{project / 'broken'}{os.pathsep}{start}")
    with tracking.open("digits/mart/0", "abc") as tracker:
        tracker.log(1, {"loss": 1})
    begin = time.monotonic()
    assert not tracking.flush(20)
    assert time.monotonic() - begin < 10
    assert "1 runs not sent" in capfd.readouterr().err
    assert "this MLflow is broken" in (paths.folder() / "forwarder.log").read_text()
    [path] = paths.spools(paths.folder())
    assert len(rows(path)) == 3
