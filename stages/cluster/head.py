"""`make repro` on a cluster: what is out of date is submitted once, whoever asks, and then watched."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from stages.cluster import options as asked
from stages.cluster import queue
from stages.cluster.arrays import arrays
from stages.cluster.done import held, is_done, take_in
from stages.cluster.job import CellJob, ClosingJob
from stages.cluster.ledger import Ledger
from stages.cluster.watch import counted, watch
from stages.marks import Marks
from stages.pipeline import Cell
from stages.repro import outdated, take_inputs, through_dvc
from stages.walk import behind, walk, workers
from turncoat.errors import TurncoatError
from turncoat.settings import Settings

ROUNDS = 5  # times that what was lost with its node is submitted again, where Slurm does not do so itself
NAMED = 3  # cells of an array that its line names
PAUSE = 30.0  # seconds until a queue that others have filled is tried again


def repro(settings: Settings, plan: dict[str, Cell], environment: dict[str, str]) -> int:
    """Run on the cluster what is out of date; the exit status of the last plain `dvc repro`.

    Raises:
        TurncoatError: cluster.yaml is wrong, there is no Slurm, or cells failed; each one's last lines.
    """
    options = asked.read({cell.stage for cell in plan.values()})
    queue.check()
    losses, largest = 0, options.array
    while True:
        try:
            ledger, full = begin(plan, environment, options.model_copy(update={"array": largest}), settings.own_files)
            lost = follow(plan, ledger)
            stuck = bool(full) and not ledger.cells
            # there may be room for an array of fewer, and later for one of more again
            largest, tried = max(1, largest // 2) if stuck else min(options.array, 2 * largest), largest
            if stuck:
                if tried == 1 and "temporarily" not in full:
                    raise TurncoatError(f"Slurm takes not one of the jobs ({full}); see cluster.yaml")
                time.sleep(PAUSE)
        except KeyboardInterrupt:
            ledger = Ledger.read()
            queue.cancel([*ledger.cells.values(), *filter(None, [ledger.closing]), *queue.mine()])
            Ledger().write()  # jobs that are still dying are no longer counted on
            print("\nthe jobs are cancelled; what is finished stays, and `make repro` goes on from there", flush=True)
            raise
        if not full and not lost:
            break
        losses += bool(lost)
        if losses > ROUNDS:
            told = f"{', '.join(lost)}: lost again and again"
            raise TurncoatError(f"{told}; `sinfo -R` says what is wrong with the nodes")
    with held("head"):
        take_in(plan)
        code = subprocess.run(["dvc", "--wait-for-lock", "repro"], env=environment).returncode
    if not code:
        print("open reports/report.html")
    return code


def begin(
    plan: dict[str, Cell], environment: dict[str, str], options: asked.Options, own_files: bool = False
) -> tuple[Ledger, str]:
    """Make here what cells rest on, enter what jobs have finished, and submit what is out of date; as `enqueue`.

    Of two heads the second waits for the first, and finds what that one has submitted.
    """
    run = partial(through_dvc, environment)
    with held("head"):
        take_inputs(plan, environment, own_files)
        take_in(plan)
        todo = behind(plan, outdated(environment))
        here = [name for name in todo if plan[name].stage in asked.HERE]
        walk(plan, here, run, workers())
        return enqueue(plan, [name for name in todo if name not in here], options)


def enqueue(plan: Mapping[str, Cell], todo: Sequence[str], options: asked.Options) -> tuple[Ledger, str]:
    """Submit the cells that no job is at, and one job after all of them that closes the study.

    Returns: the cells that are in the queue now; and "" if these are all, else why Slurm takes the rest later.

    Raises:
        TurncoatError: Slurm does not answer, or refuses the jobs.
    """
    ledger = Ledger.read()
    known = [*ledger.cells.values(), *filter(None, [ledger.closing])]
    told = queue.states({place.job for place in known})
    if told is None:
        raise TurncoatError("Slurm does not answer: `squeue` fails; nothing was submitted. Try again")
    live = {str(place) for place in known if told.get(str(place), ("COMPLETED", ""))[0] not in queue.ENDED}
    marks = Marks(plan)
    digests = {name: marks.digest(plan[name]) for name in todo}
    going = {name: place for name, place in ledger.cells.items() if str(place) in live}
    stale = [
        name
        for name in going
        if name not in plan or ledger.digests[name] != digests.get(name, marks.digest(plan[name]))
    ]
    if stale:
        queue.cancel(going[name] for name in stale)
        print(f"{len(stale)} jobs are cancelled: their cells have other settings or code by now", flush=True)
    placed = {name: place for name, place in going.items() if name in digests and name not in stale}
    if placed:
        print(f"{len(placed)} cells are in the queue already: {counted(placed, told)}", flush=True)
    ledger.cells, ledger.digests = dict(placed), {name: ledger.digests[name] for name in placed}
    # what a job has finished since `todo` was made is entered in the end
    todo = [name for name in todo if name in placed or not is_done(plan[name], digests[name])]
    new = [name for name in todo if name not in placed]
    if not placed and not new:
        return ledger, ""
    full = ""
    try:
        for stage in dict.fromkeys(plan[name].stage for name in new):
            names = [name for name in new if plan[name].stage == stage]
            for group, after in list(arrays(names, plan, placed, options.array)):
                work = [CellJob(str(Path.cwd()), name, upstream(plan, name), digests[name]) for name in group]
                places = queue.submit(stage, work, after, options)
                placed |= dict(zip(group, places, strict=True))
                ledger.enter(group, places, digests)
                print(f"{_listed(group)}: queued, job {places[0].job}", flush=True)
        if new or not ledger.closing or str(ledger.closing) not in live:
            _close(plan, ledger, live, options)
    except queue.QueueFull as reason:
        full = str(reason)
        print(f"the queue is full ({reason}): {len(todo) - len(placed)} cells wait for room in it", flush=True)
    print(
        f"{len(placed)} cells in the queue. They go on if this process ends: `make repro` finds them again. "
        "Ctrl-C cancels them",
        flush=True,
    )
    return ledger, full


def _listed(names: Sequence[str]) -> str:
    """All of the names where they are few, else the first of them and a count."""
    few, more = names[:NAMED], len(names) - NAMED
    return ", ".join(few) + (f" and {more} more" if more > 0 else "")


def _close(plan: Mapping[str, Cell], ledger: Ledger, live: set[str], options: asked.Options) -> None:
    """One job when all others are over, well or not; an earlier one, of fewer cells, is taken back."""
    if ledger.closing and str(ledger.closing) in live:
        queue.cancel([ledger.closing])
    jobs = sorted({place.job for place in ledger.cells.values()})
    closing = ClosingJob(str(Path.cwd()), plan, list(ledger.cells))
    ledger.closing = queue.submit(asked.CLOSING, [closing], "afterany:" + ":".join(jobs), options)[0]
    ledger.write()


def follow(plan: Mapping[str, Cell], ledger: Ledger) -> list[str]:
    """Watch the jobs to their end; the cells that were lost with a node.

    Raises:
        TurncoatError: cells failed; each one's last lines.
    """
    if not ledger.cells:
        return []
    seen = watch(plan, ledger.cells, ledger.digests, ledger.closing)
    if seen.failed:
        with suppress(OSError), held("head"):  # what is finished waits for the next call, where nothing can be written
            take_in(plan)
        raise TurncoatError("\n".join(seen.failed.values()))
    return seen.lost


def upstream(plan: Mapping[str, Cell], name: str) -> dict[str, Cell]:
    """The cell and all that it rests on."""
    found, open_ = {name: plan[name]}, [name]
    while open_:
        for before in plan[open_.pop()].follows:
            if before not in found:
                found[before] = plan[before]
                open_.append(before)
    return found
