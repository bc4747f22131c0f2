"""Watching the queue: a line for each cell that starts, ends or fails. It reads alone: whoever watches may die."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from stages.cluster import queue
from stages.cluster.arrays import Place
from stages.cluster.done import FOLDER, is_done
from stages.pipeline import Cell
from stages.walk import LOGS

LOOK = (1.0, 15.0)  # seconds between looks: at first, and when nothing has changed for long
GRACE = 60.0  # seconds that a shared file system may take to show another node's files
LINES = 4  # of a log, when its cell failed


@dataclass
class Watched:
    """Attributes: done: names. failed: name -> what is told. lost: names that another try may finish."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def watch(
    plan: Mapping[str, Cell], places: Mapping[str, Place], digests: Mapping[str, str], closing: Place | None
) -> Watched:
    """Until each of these cells is done or over, and the closing job after them."""
    watching = _Watching(plan, places, digests)
    jobs = {place.job for place in [*places.values(), *filter(None, [closing])]}
    wait, silent = LOOK[0], False
    while True:
        told = queue.states(jobs)
        if told is None and not silent:
            print("Slurm does not answer; the jobs go on, and it is asked again", flush=True)
        silent = told is None
        wait = LOOK[0] if told and watching.look(told) else min(LOOK[1], 1.2 * wait)
        if told is not None and not watching.open:
            last = told.get(str(closing), ("", ""))[0]
            if not closing or not last or last in queue.ENDED:
                return watching.seen
        time.sleep(wait)


@dataclass
class _Watching:
    """What was seen so far. Attributes: open: cells that are not over. over: since when a job is, without a mark."""

    plan: Mapping[str, Cell]
    places: Mapping[str, Place]
    digests: Mapping[str, str]
    seen: Watched = field(default_factory=Watched)
    running: set[str] = field(default_factory=set)
    over: dict[str, float] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.open = dict.fromkeys(self.places)

    def look(self, told: Mapping[str, tuple[str, str]]) -> bool:
        """Tell what has changed; whether a cell came to its end."""
        before = len(self.open)
        for name in list(self.open):
            state, reason = told.get(str(self.places[name]), ("", ""))
            if state and state not in queue.ENDED:
                self._goes_on(name, state, reason)
            elif is_done(self.plan[name], self.digests[name]):
                self.seen.done.append(name)
                self._over(name, f"done  {_tail(name, 1)}")
            elif state in ("", "COMPLETED") and self._since(name) < GRACE:
                continue  # another node's files may yet come to be seen
            elif queue.ENDED.get(state):
                self.seen.lost.append(name)
                self._over(name, state.lower().replace("_", " "))
            else:
                self._failed(name, state)
        return len(self.open) < before

    def _goes_on(self, name: str, state: str, reason: str) -> None:
        self.over.pop(name, None)
        if "held" in reason.lower() and name not in self.held:
            self.held.add(name)
            self._say(f"{name}: held ({reason}); `scontrol release {self.places[name]}` lets it go on")
        if state in queue.UNDER_WAY and name not in self.running:
            self.running.add(name)
            self._say(f"{name}: running, job {self.places[name]}")
        elif state not in queue.UNDER_WAY and name in self.running:
            self.running.discard(name)
            self._say(f"{name}: queued again ({reason}); it goes on from its checkpoint")

    def _since(self, name: str) -> float:
        return time.monotonic() - self.over.setdefault(name, time.monotonic())

    def _failed(self, name: str, state: str) -> None:
        follows, seen, place = self.plan[name].follows, self.seen, self.places[name]
        if state == "CANCELLED":  # by Slurm, where what it waits for has not come
            failed = next((other for other in follows if other in seen.failed), None)
            if not failed and any(other in seen.lost for other in follows):
                seen.lost.append(name)
            else:
                seen.failed[name] = f"{name}: not run, {f'for {failed} failed' if failed else 'it was cancelled'}"
            self._over(name, "not run")
        else:
            first = f"{name} failed ({state.lower() or 'its job is gone'}); see {_log(name, place)}"
            seen.failed[name] = "\n    ".join([first, *_lines(name, place)])
            self._over(name, "FAILED")

    def _over(self, name: str, text: str) -> None:
        del self.open[name]
        self.running.discard(name)
        self._say(f"{name}: {text}")

    def _say(self, text: str) -> None:
        print(f"[{len(self.seen.done)}/{len(self.places)}] {text}", flush=True)


def counted(places: Mapping[str, Place], told: Mapping[str, tuple[str, str]]) -> str:
    """How many cells are queued, and how many run."""
    words = Counter(
        queue.RUNNING if told.get(str(place), ("", ""))[0] in queue.UNDER_WAY else queue.WAITING
        for place in places.values()
    )
    return ", ".join(f"{count} {word}" for word, count in sorted(words.items()))


def _log(name: str, place: Place) -> str:
    file = LOGS / f"{name}.log"
    return str(file if file.exists() else FOLDER / "jobs" / f"{place}_0_log.out")


def _lines(name: str, place: Place) -> list[str]:
    """The last lines of the cell's log, and of its job's, which says what befell the cell from outside."""
    job = FOLDER / "jobs" / f"{place}_0_log.out"
    outside = [line for line in job.read_text().splitlines() if line.strip()] if job.exists() else []
    inside = _tail(name, LINES)
    return [*inside.split(" | "), *[line for line in outside if "error:" in line][-1:]] if inside else outside[-LINES:]


def _tail(name: str, count: int) -> str:
    file = LOGS / f"{name}.log"
    lines = [line.strip() for line in file.read_text().splitlines() if line.strip()] if file.exists() else []
    return " | ".join(lines[-count:])
