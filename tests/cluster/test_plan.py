"""The simulated queue against the real one: the same cells on two nodes, the same wall clock within 15 %."""

import os
import re
import subprocess
import time
from statistics import median

import pytest

from benchmarks.scale import wall_clock
from stages.cluster import head
from stages.cluster.options import Options
from stages.pipeline import cells
from tests.faults.study import ENVIRONMENT, ROOT
from turncoat.reading import read_yaml

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
SECONDS = {"base": 6.0, "fine": 9.0, "evaluate": 5.0}
PLAN = """\
stages:
  inputs: {cmd: cp params.yaml data/settings.yaml, deps: [params.yaml], outs: [data/settings.yaml]}
  base:
    matrix: {seed: "${seeds}"}
    cmd: sh cell.sh base-${item.seed} 6
    deps: [data/settings.yaml]
    outs: ["out/base-${item.seed}"]
  fine:
    matrix: {arm: "${arms}", seed: "${seeds}"}
    cmd: sh cell.sh fine-${item.arm}-${item.seed} 9
    deps: ["out/base-${item.seed}"]
    outs: ["out/fine-${item.arm}-${item.seed}"]
  evaluate:
    matrix: {arm: "${arms}", seed: "${seeds}"}
    cmd: sh cell.sh evaluate-${item.arm}-${item.seed} 5
    deps: ["out/fine-${item.arm}-${item.seed}"]
    outs: ["out/evaluate-${item.arm}-${item.seed}"]
"""
CELL = "mkdir -p out; sleep $2; echo $1 > out/$1\n"


def test_two_nodes_take_as_long_as_the_simulation_says(calm, tmp_path, monkeypatch, record_property):
    monkeypatch.chdir(tmp_path)
    for name, value in (ENVIRONMENT | calm.environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # what a study has in its own folder
    (tmp_path / "data").mkdir()
    (tmp_path / "cell.sh").write_text(CELL)
    (tmp_path / "dvc.yaml").write_text(PLAN)
    (tmp_path / "params.yaml").write_text("arms: [a, b, c]\nseeds: [0, 1]\n")
    subprocess.run(["dvc", "init", "-q", "--no-scm"], check=True)
    plan = cells(read_yaml("params.yaml"))
    ledger, _ = head.begin(plan, dict(os.environ), Options())
    assert head.follow(plan, ledger) == []
    time.sleep(1)
    took, first, last = {}, [], []
    for name, place in ledger.cells.items():
        told = calm.tell("scontrol", "show", "job", "-o", str(place))
        began, ended = (stamp(re.search(rf"{word}Time=(\S+)", told)[1]) for word in ("Start", "End"))
        took[name] = ended - began
        first.append(began)
        last.append(ended)
    measured = max(last) - min(first)
    start = median(took[name] - SECONDS[plan[name].stage] for name in took)  # of a job, beside its cell
    simulated = wall_clock(plan, {name: SECONDS[plan[name].stage] for name in took}, 2, start)
    for what, seconds in (("measured", measured), ("simulated", simulated), ("start", start)):
        record_property(what, seconds)
    print(f"measured {measured:.0f} s, simulated {simulated:.0f} s, of each job {start:.1f} s beside its cell")
    assert abs(simulated / measured - 1) < 0.15


def stamp(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
