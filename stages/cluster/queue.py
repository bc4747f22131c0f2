"""Slurm, as far as a study needs it: submit through submitit, ask for states, cancel."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from stages.cluster.arrays import Place
from stages.cluster.done import FOLDER
from stages.cluster.options import Options
from turncoat.errors import TurncoatError

NAME = "turncoat-"  # of each job, before its stage
WAITING, RUNNING = "queued", "running"
ENDED = {  # Slurm's words for a job that is over, and whether it is worth another try
    "COMPLETED": False,
    "FAILED": False,
    "OUT_OF_MEMORY": False,
    "CANCELLED": False,
    "DEADLINE": False,
    "TIMEOUT": True,
    "NODE_FAIL": True,
    "BOOT_FAIL": True,
    "PREEMPTED": True,
    "REVOKED": True,
}
UNDER_WAY = ("RUNNING", "COMPLETING", "CONFIGURING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED")
FULL = ("temporarily unavailable", "temporarily unable", "submit limit", "job limit", "MaxSubmit", "QOSMax", "AssocMax")


class QueueFull(Exception):
    """Slurm takes no more jobs for now."""


def check() -> None:
    """Look for Slurm and submitit.

    Raises:
        TurncoatError: one of them is not here.
    """
    if not shutil.which("sbatch"):
        raise TurncoatError(
            "TURNCOAT_CLUSTER=slurm: there is no `sbatch` here; run `make repro` on a login node of the cluster"
        )
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise TurncoatError("TURNCOAT_CLUSTER=slurm needs submitit: run `make cluster` once") from None


def submit(stage: str, work: Sequence[Callable[[], Any]], after: str, options: Options) -> list[Place]:
    """One job array; where each of its tasks stands.

    Args:
        stage: names the array, and says which resources it gets. after: what it waits for, as `sbatch --dependency`.

    Raises:
        QueueFull: later, perhaps. TurncoatError: Slurm refuses the jobs; what it says.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    asked = options.of(stage)
    executor = submitit.SlurmExecutor(FOLDER / "jobs", max_num_timeout=options.resumptions)
    flags: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes", **asked.more}
    given = {
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "gpus_per_node": asked.gpus or None,
        "mem": f"{round(1024 * asked.memory)}MB" if asked.memory else None,
        "dependency": after or None,
        "setup": asked.setup or None,
    }
    executor.update_parameters(
        job_name=f"{NAME}{stage}",
        time=asked.minutes,
        cpus_per_task=asked.cpus,
        array_parallelism=options.at_once,
        signal_delay_s=options.warning,
        stderr_to_stdout=True,
        additional_parameters=flags,
        **{name: value for name, value in given.items() if value is not None},
    )
    configuration = {name: value for name, value in os.environ.items() if name == "SLURM_CONF"}
    try:
        with submitit.helpers.clean_env():  # a head may itself run in a job, whose variables are not these jobs'
            os.environ |= configuration
            with executor.batch():
                jobs = [executor.submit(each) for each in work]
            ids = [str(job.job_id) for job in jobs]
    except (FailedJobError, subprocess.CalledProcessError) as error:
        said = f"{error} {getattr(error, 'stderr', '') or ''}"
        if any(words.lower() in said.lower() for words in FULL):
            raise QueueFull(said.strip().splitlines()[-1]) from error
        raise TurncoatError(f"{stage}: sbatch refuses the jobs: {said.strip()}; see cluster.yaml") from error
    parts = [each.partition("_") for each in ids]
    return [Place(job, int(task) if task else None, len(ids)) for job, _, task in parts]


def check_alone() -> None:
    """Nothing runs here while jobs of this checkout are in the queue.

    Raises:
        TurncoatError: there are such jobs.
    """
    from stages.cluster.ledger import Ledger

    ledger = Ledger.read()
    places = [*ledger.cells.values(), *filter(None, [ledger.closing])]
    if places and shutil.which("squeue"):
        told = states({place.job for place in places}) or {}
        going = [place for place in places if told.get(str(place), ("COMPLETED", ""))[0] not in ENDED]
        if going:
            raise TurncoatError(
                f"{len(going)} jobs of this study are in the queue, {going[0]} among them: "
                "`TURNCOAT_CLUSTER=slurm make repro` watches them, `scancel` ends them"
            )


def states(jobs: Iterable[str]) -> dict[str, tuple[str, str]] | None:
    """Of each job and task that Slurm still knows: its state, and the reason that Slurm gives; None: no answer."""
    wanted = sorted(set(jobs))
    if not wanted:
        return {}
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r"]  # whose ever they are
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        return None
    rows = [line.split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2]
    return {job: (state, reason) for job, state, reason in rows if job.partition("_")[0] in wanted}


def mine() -> list[Place]:
    """The jobs of this checkout that are in the queue, those too that Slurm took before the ledger could say so."""
    done = subprocess.run(["squeue", "--noheader", "--format=%F|%j|%Z"], capture_output=True, text=True)
    rows = [line.split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2]
    ours = {job for job, name, folder in rows if name.startswith(NAME) and folder == str(Path.cwd())}
    return [Place(job) for job in sorted(ours)]


def cancel(jobs: Iterable[Place]) -> None:
    """Take them out of the queue, and end those that run; of those that are over nothing is heard."""
    names = sorted({str(job) for job in jobs})
    for start in range(0, len(names), 500):
        subprocess.run(["scancel", "--quiet", *names[start : start + 500]], capture_output=True)
