"""Real services on the loopback address, each in a folder of its own: sshd, S3, PostgreSQL, an MLflow server."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cluster.slurm import free_ports

SECRET = "opensesame"  # of servers that nobody else can reach


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def daemon(command, folder: Path, ready, seconds: float = 90, **more):
    """Run it until the end of the block; `ready` says when it can be used."""
    log = folder / f"{Path(command[0]).name}-{time.time_ns()}.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **more
        )
    try:
        until = time.monotonic() + seconds
        while not ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def sshd(folder: Path):
    """Its port, and the key that it lets in."""
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if os.getuid() or not Path(program).exists():
        pytest.skip("needs Debian's openssh-server, and root")
    Path("/run/sshd").mkdir(exist_ok=True)
    (port,) = free_ports(1)
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        f"PidFile {folder}/pid\n"
        "Subsystem sftp internal-sftp\n"
    )
    with daemon([program, "-D", "-e", "-f", str(folder / "config")], folder, lambda: answers(port)):
        yield port, folder / "key"


@contextmanager
def s3(folder: Path):
    """Its address; it takes any key, and holds the bucket `study`."""
    pytest.importorskip("moto.server", reason="needs moto[s3]: make cluster")
    boto3 = pytest.importorskip("boto3", reason="needs dvc-s3: make cluster")
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with daemon(command, folder, lambda: answers(port)):
        address = f"http://127.0.0.1:{port}"
        client = boto3.client(
            "s3", endpoint_url=address, aws_access_key_id="key", aws_secret_access_key=SECRET, region_name="us-east-1"
        )
        client.create_bucket(Bucket="study")
        yield address


def postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Postgres:
    """One database `mlflow`, whose owner `group` has a password; it cannot run as root."""

    def __init__(self, folder: Path) -> None:
        programs = postgres_programs()
        if programs is None or os.getuid():
            pytest.skip("needs Debian's postgresql, and root to start it as another user")
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("needs the user postgres, whom Debian's postgresql makes")
        self.programs, self.folder, (self.port,) = programs, folder, free_ports(1)
        (folder / "password").write_text(SECRET)
        for each in (folder, folder / "password"):
            os.chown(each, user.pw_uid, user.pw_gid)
        self.run("initdb", "-D", "data", "-A", "scram-sha-256", "-U", "postgres", "--pwfile=password")
        self.start()
        self.ask(f"CREATE ROLE team LOGIN PASSWORD '{SECRET}'", "CREATE DATABASE mlflow OWNER team")

    def run(self, program: str, *arguments: str) -> str:
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", str(self.programs / program)]
        done = subprocess.run(
            [*command, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=120,
            env={"PATH": os.environ["PATH"], "PGPASSWORD": SECRET, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self.run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", "data", "-m", "fast", "-w", "stop")

    def ask(self, *sentences: str, database: str = "postgres") -> str:
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database, "-At"]
        return "".join(self.run("psql", *where, "-c", sentence) for sentence in sentences)

    def address(self, password: str = SECRET) -> str:
        return f"postgresql://team:{password}@127.0.0.1:{self.port}/mlflow"


@contextmanager
def postgres():
    """In a folder of its own: those of pytest are closed to other users."""
    with tempfile.TemporaryDirectory(prefix="turncoat-postgres-") as folder:
        server = Postgres(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def mlflow_server(store: str, files: Path, port: int):
    """MLflow's own server in front of a database: its address."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(files)]

    def ready() -> bool:
        with suppress(OSError):
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200
        return False

    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes that nobody needs
    with daemon(command, files, ready, seconds=180, env=environment):
        yield f"http://127.0.0.1:{port}"
