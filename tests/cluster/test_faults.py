"""Faults of a cluster, brought about on a real Slurm: what is measured is the same to the byte, and nothing is lost."""

import os
import re
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager

import pytest
import yaml

from tests.cluster.study import Head
from tests.faults.study import edit, shell

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def same(folder, other):
    """Both studies came to the same, as DVC and the report have it."""
    name = "reports/summary.json"
    assert (folder / name).read_bytes() == (other / name).read_bytes()
    locks = [yaml.safe_load((each / "dvc.lock").read_text())["stages"] for each in (folder, other)]
    assert locks[0] == locks[1]
    assert "up to date" in shell(folder, "dvc", "status")


def checkpointed(folder, head, seconds=120):
    """Wait until a training has left a checkpoint."""
    until = time.monotonic() + seconds
    while not list(folder.glob(".scratch/*/checkpoint-*.pt")):
        assert time.monotonic() < until, head.said
        assert head.process.poll() is None, head.said
        time.sleep(0.05)


def log(folder, cell):
    return (folder / f".scratch/logs/{cell}.log").read_text()


def jobs(slurm):
    """Cells in the queue, by the arrays that they are in: a cell submitted twice would be one too many."""
    return slurm.tell("squeue", "--array", "-h", "-t", "all", "-o", "%i %j %T").split("\n")


def test_a_node_lost_in_mid_cell_costs_no_more_than_an_epoch(calm, one, alone):
    head = Head(one, calm)
    place = head.until(r"finetune@digits-pgd-0: running, job (\d+)")[1]
    checkpointed(one, head)
    node = calm.tell("squeue", "-h", "-j", place, "-o", "%N").strip()
    calm.lose(node)
    head.until("finetune@digits-pgd-0: queued again")
    calm.repair(node)
    calm.now(place)
    head.end()
    assert re.search(r"resuming after epoch \d+", log(one, "finetune@digits-pgd-0"))
    same(one, alone)


def test_a_node_that_only_seems_dead_does_not_run_a_cell_twice(calm, one, alone):
    head = Head(one, calm, PAUSE="4")  # it is to outlast Slurm's patience with a silent node
    place = head.until(r"finetune@digits-pgd-0: running, job (\d+)")[1]
    checkpointed(one, head)
    calm.stop(calm.tell("squeue", "-h", "-j", place, "-o", "%N").strip(), signal.SIGKILL)  # its job lives on
    head.until("finetune@digits-pgd-0: queued again")
    calm.now(place)
    head.end()
    assert "resuming" not in log(one, "finetune@digits-pgd-0")
    same(one, alone)


def test_a_cell_whose_time_ran_out_goes_on_from_its_checkpoint(calm, one, alone):
    # a minute at least: Slurm counts in minutes
    edit(one, lambda params: params["datasets"]["digits"]["finetuning"].update(epochs=100))
    options = "warning: 40\nstages:\n  finetune:\n    minutes: 1\n"
    head = Head(one, calm, options)
    place = head.until(r"finetune@digits-pgd-0: running, job (\d+)")[1]
    head.until("finetune@digits-pgd-0: queued again")
    while head.process.poll() is None:  # as often as its time runs out
        calm.now(place)
        time.sleep(2)
    head.end()
    assert "resuming after epoch" in log(one, "finetune@digits-pgd-0")
    assert "up to date" in shell(one, "dvc", "status")


def test_heads_come_and_go_and_the_controller_too(calm, one, alone):
    first = Head(one, calm)
    first.until("finetune@digits-pgd-0: running")
    before = jobs(calm)
    first.kill()
    calm.stop("slurmctld")
    refused = Head(one, calm)
    assert "Slurm does not answer" in refused.end(2)
    calm.start("slurmctld")
    calm.wait_for_answer()
    heads = [Head(one, calm), Head(one, calm)]
    for head in heads:
        assert "in the queue already" in head.end()
    assert len(jobs(calm)) == len(before)
    same(one, alone)


def test_ctrl_c_cancels_and_a_later_call_goes_on(calm, one, alone):
    head = Head(one, calm)
    head.until("finetune@digits-pgd-0: running")
    checkpointed(one, head)
    orphan = ["sbatch", "--parsable", "--job-name=turncoat-finetune", "--begin=now+1hour", f"--chdir={one}"]
    taken = calm.tell(*orphan, "--wrap=true").strip()  # by Slurm, before the head could note it
    other = calm.tell(*orphan[:-1], f"--chdir={one.parent}", "--wrap=true").strip()
    os.kill(head.process.pid, signal.SIGINT)
    assert "the jobs are cancelled" in head.end(-signal.SIGINT)
    assert taken.isdigit()
    assert calm.tell("squeue", "-h", "-t", "PENDING,RUNNING", "-o", "%i").split() == [other], "another checkout's"
    calm.tell("scancel", other)
    Head(one, calm).end()
    assert "resuming after epoch" in log(one, "finetune@digits-pgd-0")
    same(one, alone)


@contextmanager
def read_only(*folders):
    """These folders cannot be written to meanwhile: a read-only view of each is laid over it."""
    with ExitStack() as mounted:
        for folder in folders:
            folder.mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", folder, folder], check=True)
            mounted.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield


def test_a_file_system_that_is_read_only_for_a_while_is_waited_for(calm, one, alone):
    if subprocess.run(["mount", "--bind", one, one], capture_output=True).returncode:
        pytest.skip("no mount is allowed here, so that no file system can be made read-only")
    subprocess.run(["umount", "--lazy", one], check=True)
    head = Head(one, calm)
    head.until("finetune@digits-pgd-0: running")
    checkpointed(one, head)
    with read_only(one / ".scratch", one / "models", one / "reports"):
        time.sleep(60)
    head.end()
    assert "Read-only file system" in log(one, "finetune@digits-pgd-0")
    assert "resuming after epoch" in log(one, "finetune@digits-pgd-0")
    same(one, alone)


def test_a_cell_that_fails_is_told_with_its_last_lines_and_what_follows_it_is_not_run(calm, one):
    method = one / "turncoat/papers/mart/method.py"
    edit(one, lambda params: params["study"].update(arms=["pgd", "mart"]))
    line = "        clean = self.model(batch.images)"
    assert method.read_text().count(line) == 1
    method.write_text(method.read_text().replace(line, f"        raise RuntimeError('the moon is wrong')\n{line}"))
    said = Head(one, calm).end(2)
    assert "finetune@digits-mart-0 failed" in said
    assert "the moon is wrong" in said
    assert "evaluate@digits-mart-0: not run, for finetune@digits-mart-0 failed" in said
    assert (one / "reports/records/digits/pgd/0/record.json").exists(), "what does not follow it is run"
    assert "evaluate@digits-pgd-0" not in shell(one, "dvc", "status"), "and entered"


def test_a_queue_with_room_for_two_jobs_takes_four(calm, one, alone):
    calm.configure(most=2, age=2)
    calm.tell("scontrol", "reconfigure")
    try:
        Head(one, calm).end()
        assert "Resource temporarily unavailable" in (calm.folder / "slurmctld.log").read_text()
    finally:
        calm.configure(most=5000)
        calm.tell("scontrol", "reconfigure")
    same(one, alone)
