"""One Slurm for all tests, and what the same studies come to without one."""

import fcntl
import shutil
import sys
from functools import partial

import pytest

from tests.cluster import slurm as small_cluster
from tests.cluster.study import checkpoint_each_epoch, small
from tests.faults.study import lay, shell

ONE = {"arms": ("pgd",), "seeds": (0,), "epochs": 12}


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """Two nodes of one core each; all of its jobs are over between two tests."""
    if reason := small_cluster.lacking():
        pytest.skip(reason)
    pytest.importorskip("submitit", reason="needs submitit: make cluster")
    with small_cluster.running(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def calm(slurm):
    """The same Slurm, whose queue is empty and whose nodes are there, before the test and after it."""
    slurm.wait("idle idle")
    yield slurm
    slurm.tell("scancel", "--full", "-u", "root")
    for name in ("slurmctld", *small_cluster.NODES):
        if name not in slurm.running:
            slurm.start(name)
    slurm.tell("scontrol", "update", "NodeName=n1,n2", "State=RESUME")
    slurm.wait("idle idle", 90)


def laid(folder, **plan):
    """A study, with a checkpoint after each epoch; nothing has run."""
    lay(folder, partial(small, **plan))
    checkpoint_each_epoch(folder)
    return folder


def local(folder, **plan):
    """The same study, run on this machine alone."""
    shell(laid(folder, **plan), sys.executable, "-m", "stages.repro")
    return folder


@pytest.fixture(scope="session")
def alone(tmp_path_factory, worker_id):
    """One arm and one seed, finished: made once, by whichever of pytest's workers wants it first."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder if worker_id == "master" else folder.parent) / "alone"
    with open(f"{folder}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "finished").exists():
            local(folder / "study", **ONE)
            (folder / "finished").touch()
    return folder / "study"


@pytest.fixture
def one(tmp_path, alone):
    """The same arm and seed, with data set and baseline finished: what is left is four cells and the report."""
    folder = tmp_path / "study"
    shutil.copytree(alone, folder, symlinks=True)
    for path in ("models/digits/pgd", "reports", "dvc.lock", ".dvc/tmp", ".dvc/cache"):
        made = folder / path
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    shell(folder, "dvc", "commit", "--force", "inputs", "download", "baseline", "perturb", "pretrain")
    return folder
