"""Faults 23, 24 and 29: servers that are down or die, six processes at a fresh store, temporary experiments."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import browser
from turncoat.tracking import paths, relay

HOUSE = Path(__file__).parents[2]
# one server process instead of four, and no job runner: a test machine has better things to do
LIGHT = {"MLFLOW_WORKERS": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
FOREIGN = (
    "DVC_ROOT",
    "DVC_STAGE",
    "DVC_EXP_NAME",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "TURNCOAT_TRACKING",
)

# A training as tracking sees it: epochs with some work between them, then the end. Prints the seconds that it lost.
TRAINING = """
import sys, time
from turncoat import tracking
arm, epochs, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
begin = time.monotonic()
with tracking.open(f"digits/{arm}/0", "abc", f"finetune@digits-{arm}-0", {"arm": {"method": arm}}) as tracker:
    for epoch in range(1, epochs + 1):
        tracker.log(epoch, {"epoch": epoch, "loss": 1 / epoch, "train_accuracy": 1 - 1 / epoch})
        time.sleep(pause)
    tracker.final({"validation": {"best": 0.9}})
print("lost", time.monotonic() - begin - epochs * pause)
"""
FLUSH = """
import time
from turncoat import tracking
begin = time.monotonic()
tracking.flush(120)
print("lost", time.monotonic() - begin)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, made the current one, and no forwarder left when the test is over."""
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(HOUSE))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for folder in tmp_path.glob("**/.scratch/tracking/*/"):
        with relay.take_over(folder):
            pass


def start(arm: str, epochs: int = 20, pause: float = 0.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TRAINING, arm, str(epochs), str(pause)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> tuple[float, str]:
    """The seconds that tracking took from a training that ended well, and what it said on stderr."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return float(out.split()[-1]), err


def run(code: str) -> tuple[float, str]:
    return finish(
        subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    )


def make_mlflow() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stages.mlflow"], capture_output=True, text=True, timeout=120)


def curves(database: Path) -> dict[str, list[tuple[int, float]]]:
    """The loss curve of every run, read past MLflow."""
    found: dict[str, list[tuple[int, float]]] = {}
    with sqlite3.connect(database) as connection:
        query = (
            "select runs.name, step, value from runs join metrics using (run_uuid) "
            "where metrics.key = 'loss' and lifecycle_stage = 'active' order by runs.name, step"
        )
        for name, step, value in connection.execute(query):
            found.setdefault(name, []).append((step, value))
    return found


def expected(epochs: int = 20) -> list[tuple[int, float]]:
    return [(epoch, 1 / epoch) for epoch in range(1, epochs + 1)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A real MLflow server with a store of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir(exist_ok=True)
        self.database = folder / "server.db"
        self.address = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        self.process = subprocess.Popen(
            [
                *command,
                "--backend-store-uri",
                f"sqlite:///{self.database}",
                "--artifacts-destination",
                str(folder / "artifacts"),
            ],
            cwd=folder,
            env=environment | LIGHT,
            stdout=(folder / "log").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        until = time.monotonic() + 240
        while True:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=2):
                    return
            except OSError:
                assert self.process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.1)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    started: list[Server] = []
    yield started
    for server in started:
        server.kill()


@pytest.mark.fault(24, "six trainings at once, no store yet", "every row arrives")
def test_six_processes_at_a_fresh_store(project: Path) -> None:
    begin = time.monotonic()
    trainings = [start(f"arm{i}") for i in range(6)]
    for training in trainings:
        lost, said = finish(training)
        assert lost < 5
        assert said == ""
    lost, said = run(FLUSH)
    assert said == "", said
    assert curves(project / "mlflow.db") == {f"digits/arm{i}/0": expected() for i in range(6)}
    assert paths.spools(paths.folder()) == []
    assert time.monotonic() - begin < 60


@pytest.mark.slow
@pytest.mark.fault(24, "six checkouts at once at one store that is not there yet", "every row arrives")
def test_six_checkouts_at_one_fresh_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/shared.db")
    trainings = []
    for i in range(6):
        (project / f"checkout{i}").mkdir()
        monkeypatch.chdir(project / f"checkout{i}")
        trainings.append(start(f"arm{i}"))
    for training in trainings:
        assert finish(training)[0] < 5
    for i in range(6):
        monkeypatch.chdir(project / f"checkout{i}")
        assert run(FLUSH.replace("120", "240"))[1] == ""
        with relay.take_over(paths.folder()):
            pass
    assert curves(project / "shared.db") == {f"digits/arm{i}/0": expected() for i in range(6)}


@pytest.mark.fault(23, "no server at the address", "one warning, under 5 s lost, rows on disk")
def test_a_server_that_is_not_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    trainings = [start("mart"), start("pgd")]
    ended = [finish(training) for training in trainings]
    begin = time.monotonic()
    while not relay.outage(paths.folder()):
        assert time.monotonic() - begin < 60
        time.sleep(0.1)
    lost, said = run(FLUSH)  # the last word of a study
    assert max(lost, *(lost for lost, _ in ended)) < 5
    assert sum(said.count("\n") for _, said in ended) <= 1, ended
    assert said.count("MLflow: rows not sent") == said.count("\n") == 1, said
    assert "://***@127.0.0.1" in said
    assert "does not answer" in said
    lost, said = finish(start("trades"))
    assert (lost < 5, said) == (True, ""), "the warning stands once an outage"
    assert len(paths.spools(paths.folder())) == 3


@pytest.mark.slow
@pytest.mark.fault(
    23,
    "`make mlflow` while the server is down, then without it",
    "refused in one line; then all rows arrive",
)
def test_what_could_not_be_sent_is_sent_later(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    for arm in ("mart", "pgd"):
        finish(start(arm))
    refused = make_mlflow()
    assert refused.returncode == 2
    assert "the rows stay in" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "secret" not in refused.stderr
    assert len(paths.spools(paths.folder())) == 2

    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # the user gives the server up
    sent = make_mlflow()
    assert sent.returncode == 0, sent.stderr
    assert "2 waiting files sent" in sent.stdout
    assert curves(project / "mlflow.db") == {"digits/mart/0": expected(), "digits/pgd/0": expected()}
    assert not list((project / ".scratch" / "tracking").glob("*/*.jsonl"))


@pytest.mark.slow
@pytest.mark.fault(23, "a server that accepts and says nothing", "under 5 s lost, rows on disk")
def test_a_server_that_does_not_answer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:  # accepts and says nothing: what a hanging server looks like
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        lost, _ = finish(start("mart", 100))
        assert lost < 5
        lost, said = run(FLUSH.replace("120", ""))
        assert lost < 5
        assert said.startswith("MLflow: ")
        assert len(paths.spools(paths.folder())) == 1


@pytest.mark.slow
@pytest.mark.fault(
    23,
    "a real server killed in mid-run and started again",
    "training ends, one warning, the whole curve arrives",
)
def test_a_server_that_dies_in_mid_run_and_comes_back(
    project: Path, monkeypatch: pytest.MonkeyPatch, servers: list[Server]
) -> None:
    port = free_port()
    servers.append(Server(project / "server", port))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers[0].address)
    training = start("mart", epochs=150, pause=0.2)
    until = time.monotonic() + 28
    while time.monotonic() < until and len(curves(servers[0].database).get("digits/mart/0", [])) < 10:
        time.sleep(0.1)
    servers[0].kill()
    arrived = curves(servers[0].database)["digits/mart/0"]
    assert 10 <= len(arrived) < 150, "the server must die in mid-run for this test to mean anything"
    lost, said = finish(training)
    assert lost < 5
    assert said.count("MLflow: rows not sent") == said.count("\n") == 1, said
    assert len(paths.spools(paths.folder())) == 1

    servers.append(Server(project / "server", port))
    sent = make_mlflow()
    assert sent.returncode == 0, sent.stderr
    assert curves(servers[1].database) == {"digits/mart/0": expected(150)}
    assert paths.spools(paths.folder()) == []


@pytest.mark.slow
@pytest.mark.fault(1, "a tracked training killed three times", "one MLflow run, each row once")
def test_a_training_killed_three_times_is_one_run(project: Path) -> None:
    for _ in range(3):
        training = start("mart", epochs=1000, pause=0.05)
        time.sleep(1.5)
        training.kill()
        training.communicate()
    finish(start("mart", epochs=60))
    assert run(FLUSH)[1] == ""
    assert curves(project / "mlflow.db") == {"digits/mart/0": expected(60)}
    with sqlite3.connect(project / "mlflow.db") as connection:
        assert connection.execute("select status from runs").fetchall() == [("FINISHED",)]


@pytest.mark.slow
@pytest.mark.fault(23, "the forwarder itself killed", "another takes over, every row arrives")
def test_a_forwarder_that_is_killed_is_replaced(project: Path) -> None:
    finish(start("mart"))
    assert run(FLUSH)[1] == ""
    training = start("pgd", epochs=60, pause=0.1)
    time.sleep(1)
    [forwarder] = [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if "turncoat.tracking.forwarder" in (process.info["cmdline"] or []) and process.info["cwd"] == str(project)
    ]
    forwarder.kill()
    finish(training)
    assert run(FLUSH)[1] == ""
    assert curves(project / "mlflow.db") == {"digits/mart/0": expected(), "digits/pgd/0": expected(60)}


@pytest.mark.slow
@pytest.mark.fault(23, "the store deleted under a running forwarder", "made anew")
def test_a_store_removed_in_mid_run_is_made_anew(project: Path) -> None:
    finish(start("mart"))
    assert run(FLUSH)[1] == ""
    (project / "mlflow.db").unlink()
    finish(start("pgd"))
    assert run(FLUSH)[1] == ""
    assert curves(project / "mlflow.db") == {"digits/pgd/0": expected()}


@pytest.mark.slow
@pytest.mark.fault(29, "a real `dvc exp run --temp` and a queued one", "both runs in the main checkout's store")
def test_temporary_and_queued_experiments_reach_the_main_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shell(*command: str) -> str:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "somebody@example.org")
    (project / "train.py").write_text(
        "from turncoat import tracking\n"
        "beta = float(open('params.yaml').read().split(':')[1])\n"
        "with tracking.open('digits/mart/0', f'fingerprint-{beta}', settings={'beta': beta}) as tracker:\n"
        "    tracker.log(1, {'loss': beta})\n"
        "open('model.txt', 'w').write(str(beta))\n"
    )
    (project / "params.yaml").write_text("beta: 5\n")
    (project / "dvc.yaml").write_text(
        f"stages: {{train: {{cmd: {sys.executable} train.py, deps: [train.py], params: [beta], outs: [model.txt]}}}}\n"
    )
    (project / ".gitignore").write_text(".scratch/\nmlflow.db\nmlartifacts/\n")
    for command in ("git init -q", "dvc init -q", "git add -A", "git commit -qm study", "dvc repro -q", "git add -A"):
        shell(*command.split())
    shell("git", "commit", "-qm", "results")
    shell("dvc", "exp", "run", "-q", "--temp", "-S", "beta=6")
    shell("dvc", "exp", "run", "-q", "--queue", "-S", "beta=7")
    shell("dvc", "queue", "start")
    until = time.monotonic() + 60
    while "Success" not in (status := shell("dvc", "queue", "status")):
        assert time.monotonic() < until, status
        time.sleep(0.5)
    assert run(FLUSH)[1] == ""
    with sqlite3.connect(project / "mlflow.db") as connection:
        values = [row[0] for row in connection.execute("select value from metrics order by value")]
        query = "select run_uuid, value from tags where key = 'experiment'"
        experiments = connection.execute(query).fetchall()
        current = connection.execute(
            "select count(*) from tags where key = 'superseded' and value = 'false'"
        ).fetchone()
    assert values == [5.0, 6.0, 7.0]
    assert len(experiments) == 2
    assert current == (3,)


def clicked(address: str, folder: Path) -> None:
    """What docs/tracking.md promises: its link, and one click on the experiment once *Model training* is chosen."""
    find = "[...document.querySelectorAll('{}')].filter(e => e.textContent.trim() === '{}').pop()"

    def click(page: browser.Page, tags: str, text: str) -> None:
        page.wait(f"Boolean({find.format(tags, text)})", 120)
        page.run(f"{find.format(tags, text)}.click()")

    with browser.Page(folder / "first") as page:
        page.open(f"{address}/#/experiments/1/runs?workflowType=machine_learning")
        click(page, "a", "digits/mart/0")
        page.wait("document.body.innerText.includes('train_accuracy')", 120)
    with browser.Page(folder / "second") as page:
        page.open(f"{address}/#/experiments")
        click(page, "button, label, span, div, input", "Model training")
        click(page, "a", "turncoat")
        page.wait("document.body.innerText.includes('digits/mart/0')", 120)


@pytest.mark.slow
def test_mlflow_ui_without_options_shows_it_all(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = project / "study 100%41 #1 ü"
    project.mkdir()
    monkeypatch.chdir(project)
    (project / "tradeoff.svg").write_text("<svg/>")
    code = (
        "from turncoat import tracking\n"
        "with tracking.open('report', 'abc') as tracker: tracker.artifact('tradeoff.svg', 'figures')\n"
        "tracking.flush(120); print('lost', 0)"
    )
    finish(start("mart"))
    assert run(code)[1] == ""
    project = project.rename(project.with_name("moved"))
    monkeypatch.chdir(project)
    port = free_port()
    ui = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", "--port", str(port)],
        env=os.environ | LIGHT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until, address = time.monotonic() + 240, f"http://127.0.0.1:{port}"
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.2)
        with sqlite3.connect(project / "mlflow.db") as connection:
            ids = dict(connection.execute("select name, run_uuid from runs").fetchall())
        shown = f"{address}/ajax-api/2.0/mlflow/metrics/get-history?run_id={ids['digits/mart/0']}&metric_key=loss"
        with urllib.request.urlopen(shown, timeout=20) as answer:
            assert answer.read().count(b'"step"') == 20
        figure = f"{address}/get-artifact?run_uuid={ids['report']}&path=figures/tradeoff.svg"
        with urllib.request.urlopen(figure, timeout=20) as answer:
            assert answer.read() == b"<svg/>", "where the files lie now"
        if browser.CHROMIUM:
            clicked(address, project)
    finally:
        os.killpg(ui.pid, signal.SIGKILL)
        ui.wait()
