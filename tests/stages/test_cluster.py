"""What a cluster is told, without one: job arrays, cluster.yaml, marks of finished cells, what a job does."""

import contextlib
import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from stages.cluster import done, head, job, options, queue
from stages.cluster.arrays import Place, arrays
from stages.cluster.ledger import Ledger
from stages.cluster.watch import watch
from stages.marks import Marks
from stages.pipeline import Cell, cells
from turncoat.errors import TurncoatError

ROOT = Path(__file__).parents[2]


def cell(name, *follows, command=(), outs=(), deps=()):
    return Cell(name, name.split("@")[0], {}, list(command), list(deps), [], list(outs), list(follows))


def plan(**follows):
    return {name.replace("_", "@", 1): cell(name.replace("_", "@", 1), *follows[name]) for name in follows}


def test_tasks_wait_for_the_tasks_of_their_number_and_all_of_them_for_the_rest():
    cells = plan(
        train_a=[], train_b=[], perturb_0=[], evaluate_b=["train@b", "perturb@0"], evaluate_a=["train@a", "perturb@0"]
    )
    placed = {"train@a": Place("7", 0, 2), "train@b": Place("7", 1, 2), "perturb@0": Place("8")}
    made = list(arrays(["evaluate@b", "evaluate@a"], cells, placed, 10))
    assert made == [(["evaluate@a", "evaluate@b"], "aftercorr:7,afterok:8")], "in the order of what they follow"


def test_what_does_not_correspond_waits_for_just_what_it_follows():
    cells = plan(
        base_0=[], base_1=[], fine_a0=["base@0"], fine_b0=["base@0"], fine_a1=["base@1"], last=["base@0", "base@1"]
    )
    placed = {"base@0": Place("3", 0, 2), "base@1": Place("3", 1, 2)}
    made = list(arrays(["fine@a0", "fine@b0", "fine@a1"], cells, placed, 10))
    assert made == [(["fine@a0", "fine@b0"], "afterok:3_0"), (["fine@a1"], "afterok:3_1")]
    assert list(arrays(["last"], cells, placed, 10)) == [(["last"], "afterok:3")], "a whole array by its own number"
    some = {"base@0": Place("3", 0, 3), "base@1": Place("3", 1, 3)}  # the third task was of another cell
    assert list(arrays(["last"], cells, some, 10)) == [(["last"], "afterok:3_0:3_1")]


def test_arrays_are_no_larger_than_the_cluster_takes_and_nothing_is_lost():
    cells = {f"base@{n}": cell(f"base@{n}") for n in range(25)}
    made = list(arrays(list(cells), cells, {}, 10))
    assert [len(names) for names, _ in made] == [10, 10, 5]
    assert sorted(name for names, _ in made for name in names) == sorted(cells)
    assert {after for _, after in made} == {""}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("all: {gpu: 1}", "cluster.yaml: unknown all.gpu; did you mean gpus?"),
        ("stages: {finetune: {minutes: 0}}", "cluster.yaml: stages.finetune.minutes: Input should be greater than 0"),
        (
            "stages: {finetun: {gpus: 1}}",
            "cluster.yaml: stages.finetun: no stage of dvc.yaml that runs as jobs; did you mean",
        ),
        ("stages: {download: {gpus: 1}}", "cluster.yaml: stages.download: no stage of dvc.yaml that runs as jobs"),
    ],
)
def test_a_fault_in_the_file_is_named(text, said, tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(TurncoatError) as told:
        options.read({"inputs", "download", "finetune", "evaluate", "report"}, file)
    assert said in str(told.value).replace(str(file), "cluster.yaml")


def test_a_stage_departs_from_all_and_no_file_is_a_file_too(tmp_path):
    file = tmp_path / "cluster.yaml"
    assert options.read({"finetune"}, file).of("finetune") == options.Resources()
    file.write_text("all: {partition: gpu, gpus: 1, minutes: 30}\nstages:\n  evaluate: {minutes: 600}\n")
    read = options.read({"finetune", "evaluate"}, file)
    assert (read.of("finetune").minutes, read.of("evaluate").minutes) == (30, 600)
    assert read.of("evaluate").partition == "gpu"


def test_a_mark_holds_as_long_as_the_files_are_those_that_the_job_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = cell("finetune@a", outs=["models/a"])
    (tmp_path / "models/a").mkdir(parents=True)
    (tmp_path / "models/a/weights").write_text("1")
    done.mark(made, "digest")
    assert done.is_done(made, "digest")
    assert not done.is_done(made, "other settings")
    (tmp_path / "models/a/weights").write_text("12")
    assert not done.is_done(made, "digest"), "another run wrote over it"


def test_a_cell_is_still_done_once_dvc_has_laid_its_own_copy_in_place(tmp_path, monkeypatch):
    """A head may look again only after the closing job has entered the last cells."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["dvc", "init", "-q", "--no-scm"], check=True)
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: sh make.sh, outs: [file, folder]}}\n")
    plan = cells({})
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a")
    (tmp_path / "folder/file").write_text("b")
    done.mark(plan["one"], Marks(plan).digest(plan["one"]))
    enter = "from stages.cluster.done import take_in; from stages.pipeline import cells; print(take_in(cells({})))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", enter], env=environment, capture_output=True, text=True, check=True)
    assert "['one']" in said.stdout
    assert done.finished(plan, ["one"]) == ["one"]


def work(tmp_path, code, **more):
    """A job of one cell whose command is this code."""
    (tmp_path / ".scratch").mkdir(exist_ok=True)
    made = cell("finetune@a", command=[sys.executable, "-c", code], outs=["out"], **more)
    return job.CellJob(str(tmp_path), "finetune@a", {"finetune@a": made}, job.Marks({"finetune@a": made}).digest(made))


def test_a_job_runs_its_cell_once_however_often_it_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = work(tmp_path, "open('count', 'a').write('x'); open('out', 'w').write('1'); print('best epoch 2')")
    assert one() == "best epoch 2"
    assert one() == "best epoch 2"
    assert (tmp_path / "count").read_text() == "x"


def test_a_job_that_is_sent_away_comes_back_as_it_was(tmp_path):
    pytest.importorskip("submitit", reason="needs submitit: make cluster")
    one = work(tmp_path, "pass")
    assert one.checkpoint().function == one


def test_a_job_refuses_settings_that_changed_after_it_was_submitted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.json").write_text("1")
    one = work(tmp_path, "open('out', 'w').write('1')", deps=["settings.json"])
    (tmp_path / "settings.json").write_text("2")
    with pytest.raises(
        TurncoatError, match="settings or code were changed after it was submitted; run `make repro` again"
    ):
        one()
    assert not (tmp_path / "out").exists()


def test_a_failure_of_the_cell_is_told_and_one_of_the_file_system_waited_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TurncoatError, match=r"finetune@a failed: .*ZeroDivisionError"):
        work(tmp_path, "1 / 0")()
    twice = (
        "import os\nopen('count', 'a').write('x')\nif len(open('count').read()) < 2: raise OSError(30, os.strerror(30))"
    )
    work(tmp_path, twice + "\nopen('out', 'w').write('1')")()
    assert (tmp_path / "count").read_text() == "xx"
    assert "Read-only file system" in capsys.readouterr().out


def test_the_ledger_comes_back_as_it_was(tmp_path):
    file = tmp_path / "ledger.json"
    assert Ledger.read(file) == Ledger()
    kept = Ledger({"a": Place("1", 0, 2), "b": Place("1", 1, 2)}, {"a": "x", "b": "y"}, Place("2"))
    kept.write(file)
    assert Ledger.read(file) == kept


def test_a_full_queue_and_jobs_of_another_head(tmp_path, monkeypatch, capsys):
    """Nothing is submitted twice; what finds no room is left to a later call, with the job that closes the study."""
    monkeypatch.chdir(tmp_path)
    cells = {name: cell(name) for name in ("base@0", "base@1")} | {"fine@0": cell("fine@0", "base@0")}
    room, submitted = [1], []
    told = {"1_0": ("RUNNING", "None"), "1_1": ("COMPLETED", "None"), "3_0": ("PENDING", "Dependency")}

    def submit(stage, work, after, given):
        if not room[0]:
            raise queue.QueueFull("no room")
        room[0] -= 1
        submitted.append((stage, [getattr(each, "name", "") for each in work], after))
        return [Place(str(len(submitted)), number, len(work)) for number in range(len(work))]

    monkeypatch.setattr(queue, "submit", submit)
    monkeypatch.setattr(queue, "states", lambda jobs: told)
    ledger, full = head.enqueue(cells, list(cells), options.Options())
    assert full == "no room"
    said = capsys.readouterr().out
    assert "the queue is full (no room): 1 cells wait for room in it" in said
    assert "base@0, base@1: queued, job 1" in said
    assert ledger.closing is None
    room[0] = 2
    ledger, full = head.enqueue(cells, ["base@0", "fine@0"], options.Options())
    assert not full
    assert submitted == [
        ("base", ["base@0", "base@1"], ""),
        ("fine", ["fine@0"], "afterok:1_0"),
        ("closing", [""], "afterany:1:2"),
    ]
    assert head.enqueue(cells, ["base@0"], options.Options())[0].cells.keys() == {"base@0"}
    assert len(submitted) == 3
    monkeypatch.setattr(queue.shutil, "which", lambda name: name)
    with pytest.raises(TurncoatError, match="2 jobs of this study are in the queue, 1_0 among them"):
        queue.check_alone()
    del told["3_0"]
    room[0] = 1
    head.enqueue(cells, ["base@0"], options.Options())
    assert submitted[-1] == ("closing", [""], "afterany:1"), "the last head died before it, or it was lost"
    done.mark(cells["fine@0"], Marks(cells).digest(cells["fine@0"]))
    assert "fine@0" not in head.enqueue(cells, ["base@0", "fine@0"], options.Options())[0].cells, "done meanwhile"


def test_a_queue_that_others_have_filled_is_waited_for_with_smaller_arrays(monkeypatch):
    asked, waited = [], []
    answers = ["submit limit"] * 3 + ["temporarily unavailable"] * 8 + [""]

    def begin(plan, environment, given, own_files):
        asked.append(given.array)
        return Ledger(), answers[len(asked) - 1]

    monkeypatch.setattr(head, "begin", begin)
    monkeypatch.setattr(head.time, "sleep", waited.append)
    monkeypatch.setattr(head.queue, "check", lambda: None)
    monkeypatch.setattr(head.asked, "read", lambda stages: options.Options(array=8))
    monkeypatch.setattr(head, "held", lambda name: contextlib.nullcontext())
    monkeypatch.setattr(head, "take_in", lambda plan: [])
    monkeypatch.setattr(head.subprocess, "run", lambda *given, **more: subprocess.CompletedProcess(given, 0))
    settings = types.SimpleNamespace(own_files=False)
    assert head.repro(settings, {}, {}) == 0
    assert asked == [8, 4, 2, *[1] * 9]
    assert waited == [head.PAUSE] * 11
    asked.clear()
    answers[3:] = ["submit limit"]
    with pytest.raises(TurncoatError, match="takes not one of the jobs"):
        head.repro(settings, {}, {})


def test_a_cell_that_meets_a_file_system_elsewhere_that_is_away_does_not_go_on_for_ever(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = {"base@0": cell("base@0")}
    times = []
    monkeypatch.setattr(job, "_run", lambda cell: times.append(cell) and False)
    monkeypatch.setattr(job, "LOOK", 0.0)
    with pytest.raises(TurncoatError, match=f"base@0: failed {job.TRIES} times"):
        job.CellJob(str(tmp_path), "base@0", cells, job.Marks(cells).digest(cells["base@0"]))()
    assert len(times) == job.TRIES


def test_jobs_of_cells_that_an_edit_changed_are_cancelled_and_submitted_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = {name: cell(name) for name in ("base@0", "base@1")}
    marks = job.Marks(cells)
    same = Place("7", 1, 2)
    Ledger(
        {"base@0": Place("7", 0, 2), "base@1": same}, {"base@0": "old", "base@1": marks.digest(cells["base@1"])}
    ).write()
    cancelled, submitted = [], []
    monkeypatch.setattr(queue, "cancel", cancelled.extend)
    monkeypatch.setattr(queue, "states", lambda jobs: {"7_0": ("RUNNING", "None"), "7_1": ("PENDING", "Priority")})
    monkeypatch.setattr(queue, "submit", lambda stage, *more: submitted.append(stage) or [Place(f"8{len(submitted)}")])
    ledger, full = head.enqueue(cells, list(cells), options.Options())
    assert not full
    assert cancelled == [Place("7", 0, 2)]
    assert submitted == ["base", "closing"]
    assert ledger.cells == {"base@0": Place("81"), "base@1": same}
    assert "1 jobs are cancelled: their cells have other settings or code by now" in capsys.readouterr().out


def test_watching_tells_each_cell_and_what_followed_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = plan(train_a=[], train_b=[], evaluate_b=["train@b"])
    cells["train@a"] = replace(cells["train@a"], outs=["a"])
    places = {"train@a": Place("1", 0, 2), "train@b": Place("1", 1, 2), "evaluate@b": Place("2")}
    (tmp_path / ".scratch/logs").mkdir(parents=True)
    (tmp_path / ".scratch/logs/train@b.log").write_text("step 1\nthe loss is not finite\n")
    looks = [
        {"1_0": ("RUNNING", "None"), "1_1": ("PENDING", "Priority"), "2": ("PENDING", "Dependency")},
        None,
        {"1_0": ("COMPLETED", "None"), "1_1": ("FAILED", "NonZeroExitCode"), "2": ("CANCELLED", "Dependency")},
    ]

    def states(jobs):
        told = looks.pop(0) if len(looks) > 1 else looks[0]
        if told and told["1_0"][0] == "COMPLETED":
            (tmp_path / "a").write_text("1")
            done.mark(cells["train@a"], "x")
        return told

    monkeypatch.setattr("stages.cluster.queue.states", states)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    seen = watch(cells, places, dict.fromkeys(places, "x"), None)
    assert seen.done == ["train@a"]
    assert "the loss is not finite" in seen.failed["train@b"]
    assert seen.failed["evaluate@b"] == "evaluate@b: not run, for train@b failed"
    said = capsys.readouterr().out
    assert "train@a: running, job 1_0" in said
    assert "Slurm does not answer" in said
    assert os.getcwd() == str(tmp_path)
