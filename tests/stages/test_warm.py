"""The warm server: a command that it forks does what it does in a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from stages import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are offered on Linux alone")

# Run as `python -m stages.<name>` in a folder of its own: no torch, so that the server is there at once.
PROGRAMS = {
    "says": """
        import json, os, random, signal, sys, threading
        print(json.dumps({
            "arguments": sys.argv[1:], "folder": os.getcwd(), "variable": os.environ.get("VARIABLE"),
            "umask": os.umask(0), "input": sys.stdin.read(), "name": __name__, "threads": threading.active_count(),
            "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
            "hangup": signal.getsignal(signal.SIGHUP) == signal.SIG_DFL,
            "leader": os.getpgrp() == os.getpid(), "drawn": random.random(), "server": os.getppid(),
            "open": sorted(os.listdir("/proc/self/fd"), key=int)[:3],
        }))
        print("aside", file=sys.stderr)
    """,
    "fails": "import sys; sys.exit(3)",
    "breaks": "raise ValueError('broken')",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "leaks": """
        import os, sys
        import stages.shared as shared
        shared.VALUES.append(1)
        os.environ["LEAKED"] = "1"
        print(len(shared.VALUES))
    """,
    "shared": "import os; VALUES = []; os.environ['TORCHINDUCTOR_CACHE_DIR'] = '/loaded'",  # as torch does
    "waits": """
        import pathlib, time, os
        pathlib.Path("pid").write_text(str(os.getpid()))
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pathlib.Path("interrupted").touch()
            raise SystemExit(5)
    """,
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A folder whose stages are the programs above. Signals are as a terminal leaves them, whoever runs the tests."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGINT)}
    folder = tmp_path / "stages"
    folder.mkdir()
    (tmp_path / "turncoat").mkdir()
    for name, text in PROGRAMS.items():
        lines = text.splitlines()
        (folder / f"{name}.py").write_text("\n".join(line.removeprefix(" " * 8) for line in lines))
    (folder / "__init__.py").touch()
    shutil.copytree(Path(warm.__file__).parent, folder / "warm")
    (tmp_path / "turncoat" / "__init__.py").touch()
    (tmp_path / "turncoat" / "closure.py").write_text(
        "from pathlib import Path\nROOT = Path(__file__).parents[1]\n"
        "def closure(modules):\n    return {ROOT / 'stages' / 'shared.py'}\n"
    )
    monkeypatch.chdir(tmp_path)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def ready():
    """The environment of a server that has imported what it imports."""
    with warm.offered() as environment:
        wait_for(lambda: Path(environment["TURNCOAT_WARM"]).exists())
        yield environment


@pytest.fixture
def server(study):
    with ready() as environment:
        yield environment


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def run(environment, name, *arguments, **more):
    command = ["python", "-m", f"stages.{name}", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, **more)


def test_a_fork_is_like_a_process_of_its_own(server, tmp_path):
    done = run(server | {"VARIABLE": "x y"}, "says", "--seed", "0", input="given", umask=0o027)
    said = json.loads(done.stdout)
    assert done.returncode == 0
    assert done.stderr == "aside\n"
    assert said | {"drawn": 0, "server": 0} == {
        "arguments": ["--seed", "0"], "folder": str(tmp_path), "variable": "x y", "umask": 0o027, "input": "given",
        "name": "__main__", "threads": 1, "interrupt": True, "hangup": True, "leader": True, "drawn": 0, "server": 0,
        "open": ["0", "1", "2"],
    }  # fmt: skip
    again = json.loads(run(server, "says", input="").stdout)
    assert again["server"] == said["server"] != os.getpid()
    assert again["drawn"] != said["drawn"]


@pytest.mark.parametrize(("name", "status"), [("fails", 3), ("breaks", 1), ("killed", -9)])
def test_how_a_command_ends(server, name, status):
    done = run(server, name)
    assert done.returncode == status
    assert ("ValueError: broken" in done.stderr) == (name == "breaks")
    assert run(server, "says", input="").returncode == 0  # the server outlives it


def test_nothing_leaks_from_one_command_to_the_next(server):
    assert [run(server, "leaks").stdout for _ in range(2)] == ["1\n", "1\n"]
    assert json.loads(run(server, "says", input="").stdout)["variable"] is None


def test_an_interrupt_is_passed_on(server):
    client = subprocess.Popen(["python", "-m", "stages.waits"], env=server)
    wait_for(lambda: Path("pid").exists() and Path("pid").read_text())
    client.send_signal(signal.SIGINT)
    assert client.wait(30) == 5
    assert Path("interrupted").exists()


def test_a_command_ends_with_its_client(server):
    client = subprocess.Popen(["python", "-m", "stages.waits"], env=server)
    wait_for(lambda: Path("pid").exists() and Path("pid").read_text())
    client.kill()
    client.wait()
    wait_for(lambda: not Path("/proc", Path("pid").read_text()).exists())


def test_a_command_never_runs_twice_because_the_server_died(server):
    with open("said", "w") as said:  # no pipe: what the server forked lives on and would hold it open
        client = subprocess.Popen(["python", "-m", "stages.waits"], env=server, stderr=said)
    wait_for(lambda: Path("pid").exists() and Path("pid").read_text())
    begun = Path("pid").read_text()
    about = Path("/proc", begun, "stat").read_text()
    os.kill(int(about.rpartition(")")[2].split()[1]), signal.SIGKILL)  # its parent
    assert client.wait(30) == 1
    assert "the warm server is gone" in Path("said").read_text()
    assert Path("pid").read_text() == begun
    os.kill(int(begun), signal.SIGKILL)


@pytest.mark.parametrize("other", [{"OMP_NUM_THREADS": "7"}, {"PYTHONHASHSEED": "1"}])
def test_what_libraries_read_when_loaded_starts_cold(server, other):
    warmly, coldly = (json.loads(run(server | more, "says", input="").stdout) for more in ({}, other))
    assert coldly["server"] == os.getpid() != warmly["server"]
    assert coldly["interrupt"]


def test_without_a_server_a_command_starts_cold(server):
    done = run(server | {"TURNCOAT_WARM": "/nowhere"}, "says", input="")
    assert json.loads(done.stdout)["server"] == os.getpid()
    assert subprocess.run(["python", "-c", "print(1)"], env=server, capture_output=True, text=True).stdout == "1\n"


def test_the_server_ends_with_who_offered_it(study):
    with ready() as environment:
        process = Path("/proc", str(json.loads(run(environment, "says", input="").stdout)["server"]))
        assert process.exists()
    assert not process.exists()
    assert not Path(environment["TURNCOAT_WARM"]).exists()


def test_none_is_offered_where_it_is_not_wanted(monkeypatch):
    monkeypatch.setenv("TURNCOAT_COLD", "1")
    with warm.offered() as environment:
        assert "TURNCOAT_WARM" not in environment
        assert environment["OMP_NUM_THREADS"]


def test_the_real_stages_are_taken(monkeypatch):
    """With all that they import loaded: libraries add to the environment, which must not turn every client away."""
    monkeypatch.chdir(Path(warm.__file__).parents[2])
    with ready() as environment:
        environment["TURNCOAT_WARM_PYTHON"] = "/bin/false"  # what a client that is refused becomes
        assert run(environment, "verify", "--help").returncode == 0
