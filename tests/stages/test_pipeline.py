"""dvc.yaml as `stages.pipeline` reads it, against DVC itself; and the loop that runs its cells."""

import sys
import threading
import time
from pathlib import Path

import pytest

from stages.pipeline import Cell, cells, part
from stages.walk import Unfinished, behind, walk, workers
from tests.defaults import DEFAULTS
from turncoat.errors import TurncoatError
from turncoat.reading import read_yaml
from turncoat.settings import merged

ROOT = Path(__file__).parents[2]


def test_the_cells_are_those_of_dvc_with_its_commands_dependencies_and_outputs(monkeypatch):
    monkeypatch.chdir(ROOT)
    from dvc.repo import Repo

    with Repo(ROOT, config={"core": {"no_scm": True}}) as repo:
        theirs = {stage.addressing: stage for stage in repo.index.stages}
        ours = cells(read_yaml("params.yaml"))
        assert set(ours) == set(theirs)
        for name, cell in ours.items():
            stage = theirs[name]
            assert ["python", *cell.command[1:]] == stage.cmd.split()
            assert cell.command[0] == sys.executable
            assert set(cell.deps) == {dep.def_path for dep in stage.deps}
            assert not stage.params, "a column of `dvc exp show` for each, beside those of params.yaml"
            assert set(cell.outs) == {out.def_path for out in stage.outs}
            before = {other.addressing for other in repo.index.graph.successors(stage)}
            assert set(cell.follows) == before, name
        assert next(iter(ours)) == "inputs"
        assert list(ours)[-1] == "report"


def test_an_arm_more_is_its_own_cells_more():
    params = merged(DEFAULTS).values
    before = cells(params, ROOT / "dvc.yaml")
    params["study"]["arms"] = [*params["study"]["arms"], "trades-beta-1"]
    more = cells(params, ROOT / "dvc.yaml").keys() - before.keys()
    assert more == {f"{stage}@digits-trades-beta-1-{seed}" for stage in ("finetune", "evaluate") for seed in (0, 1, 2)}
    assert part(params, "arms.trades-beta-1.beta") == 1.0


def test_what_cannot_be_is_named(tmp_path):
    file = tmp_path / "dvc.yaml"
    file.write_text("stages: {a: {cmd: 'python ${study.nothing}'}}")
    with pytest.raises(TurncoatError, match=r"names study\.nothing, which params\.yaml does not define"):
        cells({"study": {}}, file)
    file.write_text("stages: {a: {cmd: a, deps: [x], outs: [y]}, b: {cmd: b, deps: [y/z], outs: [x]}}")
    with pytest.raises(TurncoatError, match=r"wait for each other: (a, b|b, a)"):
        cells({}, file)


def plan(**follows):
    """Cells by name with what they follow, each a stage of its own."""
    return {name: Cell(name, name, {}, [], [], [], [], before.split()) for name, before in follows.items()}


DIAMOND = {"a": "", "b": "a", "c": "a", "d": "b c", "e": "d", "f": ""}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("at_once", [1, 3])
def test_each_runs_once_and_behind_what_it_follows(at_once):
    cells, started, ended = plan(**DIAMOND), [], []

    def run(chain):
        for cell in chain:
            assert set(cell.follows) <= set(ended)
            started.append(cell.name)
            time.sleep(0.02)
            ended.append(cell.name)
        return "done"

    assert walk(cells, list(cells), run, at_once) == 0
    assert sorted(started) == list("abcdef")


def test_only_what_changed_and_what_follows_runs_and_alone_waiting_cells_share_a_chain():
    cells, chains = plan(**DIAMOND), []
    todo = behind(cells, {"b"})
    assert todo == ["b", "d", "e"]
    walk(cells, todo, lambda chain: chains.append([cell.name for cell in chain]) or "", 2)
    assert chains == [["b", "d", "e"]]


def test_as_many_run_at_once_as_are_asked_for_and_the_furthest_first():
    cells = plan(first="", second="", last="first", other="first", end="last other second")
    gate, order = threading.Barrier(2, timeout=20), []

    def run(chain):
        order.append(chain[0].name)
        if chain[0].name in ("first", "second"):
            gate.wait()  # both at the same time, or it breaks
        return ""

    walk(cells, list(cells), run, 2)
    assert set(order[:2]) == {"first", "second"}
    order.clear()
    gate = threading.Barrier(1)
    walk(cells, list(cells), run, 1)
    assert order == ["second", "first", "other", "last"]


def test_a_failed_cell_keeps_no_other_from_its_end_and_is_named(capsys):
    cells = plan(a="", b="a", c="", d="c", e="c")
    ran = []

    def run(chain):
        for cell in chain:
            ran.append(cell.name)
            if cell.name == "a":
                raise TurncoatError("a failed: no network; see its log")
        return "said"

    with pytest.raises(TurncoatError, match="a failed: no network"):
        walk(cells, list(cells), run, 1)
    assert sorted(ran) == ["a", "c", "d", "e"], "b follows what failed"
    assert capsys.readouterr().out.count("said") == 3


def test_what_there_is_no_time_for_is_counted_with_what_follows():
    cells = plan(a="", b="a", c="a", d="")

    def run(chain):
        if chain[0].name == "a":
            raise Unfinished("cut off")
        return ""

    assert walk(cells, list(cells), run, 1) == 3


def test_after_ctrl_c_no_waiting_cell_starts(monkeypatch):
    cells, started = plan(**dict.fromkeys("abcde", "")), []

    def run(chain):
        started.append(chain)
        time.sleep(0.2)
        return "done"

    def interrupted(*_, **__):
        time.sleep(0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr("stages.walk.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        walk(cells, list(cells), run, 1)
    assert len(started) == 1


def test_the_number_at_once_is_one_of_the_environment(monkeypatch):
    monkeypatch.setenv("TURNCOAT_WORKERS", "7")
    assert workers() == 7
    for wrong in ("0", "two", "-1"):
        monkeypatch.setenv("TURNCOAT_WORKERS", wrong)
        with pytest.raises(TurncoatError, match="TURNCOAT_WORKERS"):
            workers()
