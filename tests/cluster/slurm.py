"""A real Slurm on the loopback address: Debian's controller and two node daemons on this machine, each node one job."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread

NODES = ("n1", "n2")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
MISSING = "needs Debian's slurmctld, slurmd, slurm-client and munge (apt-get install), and root"

CONFIGURATION = """\
ClusterName=turncoat
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmctldTimeout=60
SlurmdTimeout=10
KillWait=2
MinJobAge={age}
MaxJobCount={most}
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=100000
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str | None:
    """Why there can be no Slurm here; None: there can."""
    return MISSING if os.getuid() or not all(map(shutil.which, PROGRAMS)) else None


def free_ports(count):
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Slurm:
    """A controller, two nodes, and what tests do to them. Everything lives in `folder`."""

    def __init__(self, folder: Path, most: int = 5000) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen] = {}
        for name in ("state", "munge", *(f"spool.{node}" for node in NODES)):
            (folder / name).mkdir(parents=True)
        self.configure(most, free_ports(3))
        key = folder / "munge/key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)

    def configure(self, most: int, ports=None, age: int = 300) -> None:
        self.ports = ports or self.ports
        text = CONFIGURATION.format(host=socket.gethostname(), folder=self.folder, ports=self.ports, most=most, age=age)
        (self.folder / "slurm.conf").write_text(text)

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self, name: str) -> None:
        munge = self.folder / "munge"
        command = {
            "munged": ["munged", "--foreground", "--force", f"--key-file={munge}/key", f"--socket={munge}/socket"]
            + [f"--{what}-file={munge}/{what}" for what in ("pid", "log", "seed")],
            "slurmctld": ["slurmctld", "-D"],
        }.get(name, ["slurmd", "-D", "-N", name])
        with open(self.folder / f"{name}.out", "ab") as log:
            self.running[name] = subprocess.Popen(
                command, env=os.environ | self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def revive(self) -> None:
        """Start a crashed controller once more, as systemd does: Debian's dies of a segmentation fault at times."""
        while True:
            daemon = self.running.get("slurmctld")
            if daemon and (daemon.poll() or 0) < 0:
                self.start("slurmctld")
            time.sleep(0.5)

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        daemon = self.running.pop(name)
        daemon.send_signal(number)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def lose(self, node: str) -> None:
        """The node is gone, and all that ran on it, as when its power fails."""
        steps = [pid for pid in pids() if title(pid).startswith("slurmstepd") and on(pid, self, node)]
        self.stop(node, signal.SIGKILL)
        for step in steps:
            for pid in [step, *below(step)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def repair(self, node: str) -> None:
        """Bring a lost node back. Slurm 22.05 dies where the node gets its old job again before it has let go of it."""
        self.start(node)
        until = time.monotonic() + 60
        while self.tell("sinfo", "-h", "-n", node, "-o", "%T").strip() != "idle":
            assert time.monotonic() < until, self.logs()
            time.sleep(0.5)
        time.sleep(3)

    def tell(self, *command: str) -> str:
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    def now(self, job: str) -> None:
        """Start a job that was queued again: Slurm itself lets it wait for two minutes."""
        self.tell("scontrol", "update", f"JobId={job}", "StartTime=now")

    def wait_for_answer(self, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while "error" in self.tell("squeue", "-h"):
            assert time.monotonic() < until, self.logs()
            time.sleep(0.2)

    def wait(self, states: str, seconds: float = 60) -> None:
        """Until the nodes are in these states, `idle idle` say."""
        until = time.monotonic() + seconds
        while (seen := self.tell("sinfo", "-h", "-N", "-o", "%T").split()) != states.split():
            assert time.monotonic() < until, f"{seen} {self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))


def pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def below(pid: int) -> list[int]:
    """Processes that this one started, and those that they did."""
    parents = {}
    for other in pids():
        with suppress(FileNotFoundError, ProcessLookupError, IndexError):
            parents[other] = int(Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for known in found:
        found += [other for other, parent in parents.items() if parent == known]
    return found[1:]


def on(pid: int, slurm: Slurm, node: str) -> bool:
    """Whether a step's daemon belongs to this node of this Slurm: it logs where the node does."""
    wanted = {str(slurm.folder / f"{node}.log"), str(slurm.folder / f"spool.{node}")}
    with suppress(FileNotFoundError, ProcessLookupError):
        open_files = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
        return any(name.startswith(tuple(wanted)) for name in open_files)
    return False


@contextmanager
def running(folder: Path, **more):
    slurm = Slurm(folder, **more)
    try:
        slurm.start("munged")
        while not (folder / "munge/socket").exists():
            time.sleep(0.05)
        slurm.start("slurmctld")
        slurm.wait_for_answer()  # a node that finds no controller asks again after a minute
        for name in NODES:
            slurm.start(name)
        Thread(target=slurm.revive, daemon=True).start()
        slurm.wait("idle idle")
        yield slurm
    finally:
        slurm.tell("scancel", "--full", "-u", "root")
        time.sleep(0.5)
        for name in [*NODES, "slurmctld", "munged"]:
            if name in slurm.running:
                slurm.stop(name)
