"""Writing to MLflow twice over: every point once, nothing stale, nothing refused. MLflow's own client testifies."""

import math
from pathlib import Path
from typing import Any

import pytest

from turncoat import tracking
from turncoat.tracking import paths, relay


@pytest.fixture
def store(project: Path, empty_store: bytes) -> Path:
    (project / "mlflow.db").write_bytes(empty_store)
    paths.folder().mkdir(parents=True)
    return project


def send() -> int:
    """Be the forwarder, with a memory as empty as that of a new process. Returns the number of new runs."""
    from turncoat.tracking.forwarder import Forwarder

    with relay.take_over(paths.folder()):
        forwarder = Forwarder(paths.folder(), paths.destination())
        forwarder.send()
    return forwarder.made


def write(key: str = "digits/mart/0", fingerprint: str = "abc", **content: Any) -> None:
    """One stage: open, curve, final measures, close; its rows are sent."""
    with relay.take_over(paths.folder()), tracking.open(key, fingerprint, settings=content.get("settings")) as tracker:
        for step, value in content.get("curve", {}).items():
            tracker.log(step, {"loss": value})
        if "final" in content:
            tracker.final(content["final"])
    send()


def runs(text: str = "") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(paths.destination())
    found = client.get_experiment_by_name("turncoat")
    return list(client.search_runs([found.experiment_id], text, order_by=["start_time ASC"]))


def history(run: Any, name: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    points = MlflowClient(paths.destination()).get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in points)


def test_the_stages_of_a_cell_share_a_run(store: Path) -> None:
    write(curve={1: 0.5, 2: 0.25}, settings={"arm": {"beta": 5.0}})
    write(final={"test/clean": 0.96}, settings={"suite": {"images": 100}})
    [run] = runs()
    assert run.info.run_name == "digits/mart/0"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"arm.beta": "5.0", "suite.images": "100"}
    assert history(run, "loss") == [(1, 0.5), (2, 0.25)]
    assert history(run, "test/clean") == [(0, 0.96)]
    assert run.data.tags["cell"] == "digits/mart/0"
    assert run.data.tags["seed"] == "0"


def test_the_same_again_changes_nothing(store: Path) -> None:
    for _ in range(3):
        write(curve={1: 0.5, 2: math.nan, 3: math.inf, 4: -math.inf, 5: 1 / 3}, final={"test/clean": 2 / 3})
    [run] = runs()
    assert [step for step, _ in history(run, "loss")] == [1, 2, 3, 4, 5]
    assert history(run, "test/clean") == [(0, 2 / 3)]


def test_a_resumed_training_continues_its_run(store: Path) -> None:
    write(curve={1: 0.5, 2: 0.4, 3: 0.3})
    write(curve={3: 0.3, 4: 0.2})
    [run] = runs()
    assert history(run, "loss") == [(1, 0.5), (2, 0.4), (3, 0.3), (4, 0.2)]


def test_other_values_replace_the_curve_from_there_on(store: Path) -> None:
    write(curve={1: 0.5, 2: 0.4, 3: 0.3}, final={"test/clean": 0.9}, settings={"arm": {"beta": 5}})
    write(curve={2: 0.45, 3: 0.35})
    [run] = runs()
    assert history(run, "loss") == [(1, 0.5), (2, 0.45), (3, 0.35)]
    assert history(run, "test/clean") == [(0, 0.9)]
    assert run.data.params == {"arm.beta": "5"}
    assert run.data.tags["fingerprint"] == "abc"


def test_another_suite_replaces_final_measures_and_its_settings(store: Path) -> None:
    write(curve={1: 0.5}, final={"validation/best": 0.8}, settings={"arm": {"beta": 5}})
    write(final={"test/clean": 0.9, "test/fgsm": 0.5}, settings={"suite": {"images": 100, "fgsm": True}})
    write(final={"test/clean": 0.9, "test/pgd-20": 0.4}, settings={"suite": {"images": 100, "pgd": 20}})
    [run] = runs()
    assert sorted(run.data.metrics) == ["loss", "test/clean", "test/pgd-20", "validation/best"]
    assert run.data.params == {"arm.beta": "5", "suite.images": "100", "suite.pgd": "20"}
    assert history(run, "loss") == [(1, 0.5)]


def test_another_fingerprint_is_another_run_and_the_older_is_superseded(store: Path) -> None:
    write(fingerprint="old", curve={1: 0.5})
    write(fingerprint="new", curve={1: 0.6})
    write(key="digits/trades/0", curve={1: 0.7})
    current = runs("tags.superseded = 'false'")
    assert [(run.info.run_name, run.data.tags["fingerprint"]) for run in current] == [
        ("digits/mart/0", "new"),
        ("digits/trades/0", "abc"),
    ]
    assert [run.data.tags["fingerprint"] for run in runs("tags.superseded = 'true'")] == ["old"]
    write(fingerprint="old")
    assert {run.data.tags["fingerprint"] for run in runs("tags.superseded = 'false'")} == {"old", "abc"}


def test_a_temporary_experiment_stands_beside(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(fingerprint="workspace", curve={1: 0.5})
    elsewhere = store / ".dvc" / "tmp" / "exps"
    elsewhere.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(store))
    monkeypatch.setenv("DVC_EXP_NAME", "felon-soya")
    monkeypatch.chdir(elsewhere)
    write(fingerprint="experiment", curve={1: 0.6})
    assert {run.data.tags.get("experiment") for run in runs("tags.superseded = 'false'")} == {None, "felon-soya"}
    monkeypatch.chdir(store)
    write(fingerprint="newer", curve={1: 0.7})
    assert [run.data.tags["fingerprint"] for run in runs("tags.superseded = 'true'")] == ["workspace"]


def test_limits_of_mlflow_are_kept(store: Path) -> None:
    settings = {"arm": {f"key{i}": "x" * 7000 for i in range(250)}, "bad|name": 1}
    with (
        relay.take_over(paths.folder()),
        tracking.open("digits/mart/0", "abc", settings=settings, tags={"long": "y" * 9000}) as tracker,
    ):
        for step in range(1, 101):
            tracker.log(step, {f"m{i}": step * i for i in range(30)} | {"odd (name)": 1})
    send()
    [run] = runs()
    assert len(run.data.params) == 251
    assert len(run.data.params["arm.key0"]) == 6000
    assert len(run.data.tags["long"]) == 5000
    assert len(run.data.metrics) == 31
    assert len(history(run, "m7")) == 100
    assert paths.spools(paths.folder()) == []


def test_a_torn_and_a_damaged_line_cost_only_themselves(store: Path) -> None:
    with relay.take_over(paths.folder()):
        with tracking.open("digits/mart/0", "abc") as tracker:
            for step in (1, 2, 3):
                tracker.log(step, {"loss": step})
        [path] = paths.spools(paths.folder())
        lines = path.read_text().splitlines(keepends=True)
        lines[2] = "x" + lines[2][1:]
        path.write_text("".join(lines[:-1]) + '{"time": 1, "step": 4, "met')  # killed in mid-write
    send()
    [run] = runs()
    assert history(run, "loss") == [(1, 1.0), (3, 3.0)]
    assert run.info.status == "KILLED"
    assert paths.spools(paths.folder()) == []


def test_an_experiment_in_the_trash_comes_back(store: Path) -> None:
    from mlflow import MlflowClient

    write(curve={1: 0.5})
    client = MlflowClient(paths.destination())
    client.delete_experiment(client.get_experiment_by_name("turncoat").experiment_id)
    write(curve={2: 0.4})
    [run] = runs()
    assert history(run, "loss") == [(1, 0.5), (2, 0.4)]


def test_the_experiment_is_one_of_training_unless_a_person_says_otherwise(store: Path) -> None:
    from mlflow import MlflowClient

    write()
    client = MlflowClient(paths.destination())
    found = client.get_experiment_by_name("turncoat")
    assert found.tags["mlflow.experimentKind"] == "custom_model_development"
    client.set_experiment_tag(found.experiment_id, "mlflow.experimentKind", "regression")
    write("digits/pgd/0", "def")
    assert client.get_experiment_by_name("turncoat").tags["mlflow.experimentKind"] == "regression"


def test_artifacts_arrive(store: Path) -> None:
    (store / "figures").mkdir()
    (store / "figures" / "tradeoff.svg").write_text("<svg/>")
    with relay.take_over(paths.folder()), tracking.open("report", "abc") as tracker:
        tracker.artifact("figures")
        tracker.artifact("figures/tradeoff.svg", "first")
    send()
    [run] = runs()
    address = f"runs/{run.info.run_id}/artifacts"
    assert run.info.artifact_uri == f"mlflow-artifacts:/{address}", "no path in it: the checkout may be moved"
    files = sorted((store / "mlartifacts" / address).rglob("*.svg"))
    assert [path.relative_to(store / "mlartifacts" / address).as_posix() for path in files] == [
        *("figures/tradeoff.svg", "first/tradeoff.svg")
    ]
    assert not list(paths.folder().glob("*.files"))


def test_a_forwarder_leaves_when_its_folder_is_removed(store: Path) -> None:
    import fcntl
    import os
    import shutil
    import threading

    from turncoat.tracking.forwarder import serve

    lock = os.open(paths.folder() / "forwarder.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    thread = threading.Thread(target=serve, args=(paths.folder(), paths.destination(), lock))
    thread.start()
    thread.join(2)
    assert thread.is_alive()
    shutil.rmtree(paths.folder().parent)
    thread.join(5)
    os.close(lock)
    assert not thread.is_alive()
