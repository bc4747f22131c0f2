"""A study as jobs of a real Slurm comes to what it comes to on this machine, to the byte."""

from tests.cluster.conftest import laid, local
from tests.cluster.study import Head
from tests.cluster.test_faults import checkpointed, log, pytestmark, same

__all__ = ["pytestmark"]


def test_three_arms_and_two_seeds_come_to_the_same_with_a_node_lost_in_mid_run(calm, tmp_path):
    folder = laid(tmp_path / "cluster")
    head = Head(folder, calm, "at_once: 2\nstages:\n  finetune: {minutes: 60, memory: 1}\n  closing: {minutes: 30}\n")
    place = head.until(r"finetune@digits-(\S+): running, job (\S+)")
    checkpointed(folder, head)
    node = calm.tell("squeue", "-h", "-j", place[2], "-o", "%N").strip()
    calm.lose(node)
    head.until("queued again")
    calm.repair(node)
    calm.now(place[2])
    head.end(seconds=700)
    arrays = [line.split("_")[0] for line in calm.tell("squeue", "-h", "--array", "-t", "all", "-o", "%i").split()]
    assert any(arrays.count(job) == 3 for job in arrays), "cells of one stage are one array"
    assert f"finetune@digits-{place[1]}: done" in head.said
    assert log(folder, f"finetune@digits-{place[1]}").count("epochs") >= 2, "begun twice"
    same(folder, local(tmp_path / "local"))
