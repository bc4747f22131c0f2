"""A thousand cells of no content: what submitting them costs, entering them, and seeing that nothing is left."""

import os
import subprocess
import time

import pytest

from stages.cluster import done, head, queue
from stages.cluster.options import Options
from stages.marks import Marks
from stages.pipeline import cells
from tests.faults.study import ENVIRONMENT
from turncoat.reading import read_yaml

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
ARMS, SEEDS = 20, 25
PLAN = """\
stages:
  inputs: {cmd: cp params.yaml data/settings.yaml, deps: [params.yaml], outs: [data/settings.yaml]}
  train:
    matrix: {arm: "${arms}", seed: "${seeds}"}
    cmd: python -m train ${item.arm} ${item.seed}
    deps: [data/settings.yaml]
    outs: ["models/${item.arm}/${item.seed}"]
  evaluate:
    matrix: {arm: "${arms}", seed: "${seeds}"}
    cmd: python -m evaluate ${item.arm} ${item.seed}
    deps: ["models/${item.arm}/${item.seed}"]
    outs: ["reports/${item.arm}/${item.seed}"]
"""


def test_a_thousand_cells_are_submitted_entered_and_found_done_within_a_minute(
    calm, tmp_path, monkeypatch, record_property
):
    monkeypatch.chdir(tmp_path)
    for name, value in (ENVIRONMENT | calm.environment).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "data").mkdir()
    (tmp_path / "dvc.yaml").write_text(PLAN)
    (tmp_path / "params.yaml").write_text(f"arms: {[f'a{n}' for n in range(ARMS)]}\nseeds: {list(range(SEEDS))}\n")
    subprocess.run(["dvc", "init", "-q", "--no-scm"], check=True)
    calm.tell("scontrol", "update", "PartitionName=main", "State=DOWN")  # they are to wait in the queue
    took = {}
    try:
        began = time.monotonic()
        plan = cells(read_yaml("params.yaml"))
        ledger, full = head.begin(plan, dict(os.environ), Options())
        took["submit"] = time.monotonic() - began
        assert not full
        assert len(ledger.cells) == 2 * ARMS * SEEDS
        assert len({place.job for place in ledger.cells.values()}) == 2, "two arrays, task by task behind each other"
        assert len(calm.tell("squeue", "-h", "--array").strip().splitlines()) == 2 * ARMS * SEEDS + 1
        queue.cancel([*ledger.cells.values(), ledger.closing])
    finally:
        calm.tell("scontrol", "update", "PartitionName=main", "State=UP")
    marks = Marks(plan)
    for name in ledger.cells:
        for out in plan[name].outs:
            (tmp_path / out).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / out).write_text(name)
        done.mark(plan[name], marks.digest(plan[name]))
    began = time.monotonic()
    assert len(done.take_in(plan)) == 2 * ARMS * SEEDS
    took["enter"] = time.monotonic() - began
    began = time.monotonic()
    ledger, full = head.begin(cells(read_yaml("params.yaml")), dict(os.environ), Options())
    took["notice"] = time.monotonic() - began
    assert not full
    assert not ledger.cells
    for what, seconds in took.items():
        record_property(what, round(seconds, 1))
    print({what: f"{seconds:.1f} s" for what, seconds in took.items()})
    assert took["submit"] + took["notice"] < 60, took
