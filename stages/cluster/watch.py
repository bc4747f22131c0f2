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

    def __len__(self) -> int:
        return len(self.done) + len(self.failed) + len(self.lost)


def watch(
    plan: Mapping[str, Cell], places: Mapping[str, Place], digests: Mapping[str, str], closing: Place | None
) -> Watched:
    """Until each of these cells is done or over, and the closing job after them."""
    seen, over = Watched(), dict[str, float]()
    running: set[str] = set()
    wait = LOOK[0]
    silent = False
    while True:
        names = {place.job for place in [*places.values(), *filter(None, [closing])]}
        told = queue.states(names)
        if told is None:
            if not silent:
                print("Slurm does not answer; the jobs go on, and it is asked again", flush=True)
            silent, wait = True, LOOK[1] / 3
            time.sleep(wait)
            continue
        silent, changed = False, False
        for name, place in places.items():
            if name in seen.done or name in seen.failed or name in seen.lost:
                continue
            state, reason = told.get(str(place), ("", ""))
            if state and state not in queue.ENDED:
                if state in queue.UNDER_WAY and name not in running:
                    running.add(name)
                    _say(seen, places, f"{name}: running, job {place}")
                elif state not in queue.UNDER_WAY and name in running:
                    running.discard(name)
                    _say(seen, places, f"{name}: queued again ({reason}); it goes on from its checkpoint")
                over.pop(name, None)
                continue
            if is_done(plan[name], digests[name]):
                seen.done.append(name)
                _say(seen, places, f"{name}: done  {_tail(name, 1)}")
            elif state in ("", "COMPLETED") and time.monotonic() - over.setdefault(name, time.monotonic()) < GRACE:
                continue
            elif queue.ENDED.get(state):
                seen.lost.append(name)
                _say(seen, places, f"{name}: {state.lower().replace('_', ' ')}")
            else:
                before = next((other for other in plan[name].follows if other in seen.failed), None)
                before = before or next((other for other in plan[name].follows if other in seen.lost), None)
                if state == "CANCELLED" and before in seen.lost:
                    seen.lost.append(name)
                elif state == "CANCELLED":
                    seen.failed[name] = f"{name}: not run, {f'for {before} failed' if before else 'it was cancelled'}"
                else:
                    seen.failed[name] = "\n    ".join(
                        [
                            f"{name} failed ({state.lower() or 'its job is gone'}); see {_log(name, place)}",
                            *_lines(name, place),
                        ]
                    )
                _say(seen, places, f"{name}: {'not run' if state == 'CANCELLED' else 'FAILED'}")
            running.discard(name)
            changed = True
        if len(seen) == len(places):
            last = told.get(str(closing), ("", ""))[0]
            if not closing or not last or last in queue.ENDED:
                return seen
        wait = LOOK[0] if changed else min(LOOK[1], 1.2 * wait)
        time.sleep(wait)


def counted(places: Mapping[str, Place], told: Mapping[str, tuple[str, str]]) -> str:
    """How many cells are queued, and how many run."""
    words = Counter(
        queue.RUNNING if told.get(str(place), ("", ""))[0] in queue.UNDER_WAY else queue.WAITING
        for place in places.values()
    )
    return ", ".join(f"{count} {word}" for word, count in sorted(words.items()))


def _say(seen: Watched, places: Mapping[str, Place], text: str) -> None:
    print(f"[{len(seen.done)}/{len(places)}] {text}", flush=True)


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
