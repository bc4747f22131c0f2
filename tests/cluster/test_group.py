"""A group's MLflow server on PostgreSQL: every row arrives once, whatever happens to the server meanwhile."""

import json
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from tests.cluster import services
from tests.cluster.slurm import free_ports
from tests.cluster.study import Head
from tests.cluster.test_faults import same
from tests.faults.study import ENVIRONMENT

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
EPOCHS = 40
CELL = """
import sys, time
from turncoat import tracking
cell, seconds = sys.argv[1], float(sys.argv[2])
with tracking.open(cell, "fingerprint of " + cell, settings={"arm": {"beta": 1}}) as tracker:
    for epoch in range(1, 41):
        tracker.log(epoch, {"loss": 1 / epoch, "train_accuracy": epoch / 40})
        time.sleep(seconds)
    tracker.final({"test": {"clean": 0.5}})
print("trained", flush=True)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("group")


@pytest.fixture(scope="module")
def database():
    pytest.importorskip("psycopg", reason="needs psycopg: make cluster")
    with services.postgres() as server:
        yield server


class Server:
    """MLflow's server, which may be stopped and started again at its address."""

    def __init__(self, database, files):
        self.database, self.files, self.port, self.running = database, files, free_ports(1)[0], ExitStack()
        self.start()

    def start(self):
        started = services.mlflow_server(self.database.address(), self.files, self.port)
        self.address = self.running.enter_context(started)

    def stop(self):
        self.running.close()


@pytest.fixture(scope="module")
def whole_server(base, database):
    files = base / "files"
    files.mkdir()
    server = Server(database, files)
    yield server
    server.stop()


@pytest.fixture
def server(whole_server):
    return whole_server.address


def person(folder: Path, address: str, user: str, **more: str) -> dict[str, str]:
    """The environment of somebody's checkout."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {"TURNCOAT_TRACKING": "on", "MLFLOW_TRACKING_URI": address, "LOGNAME": user, "PYTHONPATH": str(ROOT)}
    return ENVIRONMENT | given | {"DVC_ROOT": str(folder)} | more


def start(folder: Path, environment: dict[str, str], cell: str, seconds: float = 0.0) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CELL, cell, str(seconds)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def held(address: str, name: str) -> dict[str, dict]:
    """What the server holds of an experiment: cell -> status, parameters, every point of every curve."""
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name(name)
    found = {}
    for run in client.search_runs([experiment.experiment_id], "", ViewType.ACTIVE_ONLY) if experiment else []:
        assert run.info.run_name not in found, "two runs of one cell"
        points = {
            key: [[point.step, point.value] for point in client.get_metric_history(run.info.run_id, key)]
            for key in sorted(run.data.metrics)
        }
        tags = {key: value for key, value in sorted(run.data.tags.items()) if not key.startswith("mlflow.")}
        found[run.info.run_name] = {
            "id": run.info.run_id, "status": run.info.status, "params": dict(run.data.params), "tags": tags,
            "points": points,
        }  # fmt: skip
    return found


def wait(address: str, name: str, cells, seconds: float = 120) -> dict[str, dict]:
    """Until all of these cells are finished there."""
    until = time.monotonic() + seconds
    while True:
        found = held(address, name)
        if all(found.get(cell, {}).get("status") == "FINISHED" for cell in cells):
            return found
        assert time.monotonic() < until, found
        time.sleep(1)


def whole(run: dict) -> bool:
    """Each epoch stands there once."""
    return [step for step, _ in run["points"]["loss"]] == list(range(1, EPOCHS + 1))


def test_six_cells_at_once_survive_a_restart_of_server_and_database(base, database, whole_server, server):
    folder = base / "alice/study"
    environment = person(folder, server, "alice")
    cells = [f"digits/pgd/{seed}" for seed in range(6)]
    running = [start(folder, environment, cell, 0.4) for cell in cells]
    time.sleep(8)
    whole_server.stop()
    database.stop()
    database.start()
    whole_server.start()
    said = [process.communicate(timeout=200)[0] for process in running]
    assert all("trained" in each for each in said), said
    assert sum(each.count("rows not sent") for each in said) <= 1, "one warning for all of them"
    runs = wait(server, "turncoat alice/study", cells)
    assert set(runs) == set(cells)
    assert all(whole(run) for run in runs.values())


def test_two_peoples_studies_stay_apart(base, server):
    for user in ("bob", "carol"):
        folder = base / user / "study"
        process = start(folder, person(folder, server, user), "digits/mart/0")
        assert "trained" in process.communicate(timeout=100)[0]
    for user in ("bob", "carol"):
        runs = wait(server, f"turncoat {user}/study", ["digits/mart/0"])
        assert list(runs) == ["digits/mart/0"]
        assert runs["digits/mart/0"]["tags"]["superseded"] == "false"


def test_a_run_and_an_experiment_deleted_by_hand_come_back_whole(base, server):
    folder, cell = base / "dora/study", "digits/rat/0"
    process = start(folder, person(folder, server, "dora"), cell, 0.7)
    client, name = MlflowClient(server), "turncoat dora/study"
    until = time.monotonic() + 60
    while not held(server, name):
        assert time.monotonic() < until
        time.sleep(0.2)
    client.delete_run(held(server, name)[cell]["id"])
    time.sleep(7)
    client.delete_experiment(client.get_experiment_by_name(name).experiment_id)
    said = process.communicate(timeout=200)[0]
    assert "trained" in said
    assert said.count("rows not sent") <= 2, "one for each of the two"
    assert whole(wait(server, name, [cell])[cell])


def test_a_database_that_takes_no_rows_costs_one_warning(base, database, server):
    folder, cell = base / "eve/study", "digits/pgd/0"
    database.ask("ALTER DATABASE mlflow SET default_transaction_read_only = on")
    kick = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'mlflow'"
    database.ask(kick)
    try:
        said = start(folder, person(folder, server, "eve"), cell, 0.3).communicate(timeout=200)[0]
    finally:
        database.ask("ALTER DATABASE mlflow RESET default_transaction_read_only", kick)
    assert "trained" in said
    assert said.count("rows not sent") == 1, said
    again = subprocess.run(
        [sys.executable, "-m", "stages.mlflow"],
        cwd=folder,
        env=person(folder, server, "eve"),
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert whole(wait(server, "turncoat eve/study", [cell])[cell])


def test_a_wrong_password_costs_one_warning_without_the_password(base, database):
    folder = base / "frank/study"
    wrong = database.address("notthis")
    began = time.monotonic()
    said = start(folder, person(folder, wrong, "frank"), "digits/pgd/0", 0.3).communicate(timeout=200)[0]
    assert "trained" in said
    assert said.count("rows not sent") == 1, said
    assert "password authentication failed" in said
    assert "notthis" not in said
    assert time.monotonic() - began < 90


def test_a_study_is_sent_twice_and_stands_once(base, server, alone):
    folder = base / "grace/study"
    shutil.copytree(alone, folder, symlinks=True)
    environment = person(folder, server, "grace")
    held_after = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "stages.mlflow"], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        held_after.append(json.dumps(held(server, "turncoat grace/study"), sort_keys=True))
    assert held_after[0] == held_after[1]
    assert {"digits/pgd/0", "digits/baseline/0", "report"} <= set(json.loads(held_after[0]))
    run = json.loads(held_after[0])["report"]["id"]
    assert MlflowClient(server).list_artifacts(run)
    assert list((base / "files").rglob("report.html")), "through the server, into its folder"


def test_a_study_ends_without_any_head_and_its_jobs_send_their_rows(calm, one, alone, server):
    mine = {"TURNCOAT_TRACKING": "on", "MLFLOW_TRACKING_URI": server, "LOGNAME": "henry"}
    head = Head(one, calm, **mine)
    head.until("cells in the queue")
    head.kill()
    until = time.monotonic() + 200
    while not (one / "reports/summary.json").exists() or "turncoat" in calm.tell("squeue", "-h", "-o", "%j"):
        assert time.monotonic() < until, calm.tell("squeue")
        time.sleep(0.5)
    same(one, alone)
    runs = wait(server, f"turncoat henry/{one.name}", ["digits/pgd/0", "report"])
    assert [step for step, _ in runs["digits/pgd/0"]["points"]["loss"]] == list(range(1, 13)), "each epoch once"
