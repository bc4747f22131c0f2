"""Running cells side by side, each when what it follows is done: the loop of `stages.repro` and `stages.bare`."""

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from stages.pipeline import Cell
from turncoat.errors import TurncoatError

LOGS = Path(".scratch/logs")


class Unfinished(Exception):
    """There was no time left for a cell; what follows it does not start."""


def behind(cells: Mapping[str, Cell], changed: Collection[str]) -> list[str]:
    """Names of the cells that changed and of all that follow them, in order."""
    found: list[str] = []
    for name, cell in cells.items():  # each stands behind those that it follows
        if name in changed or any(before in found for before in cell.follows):
            found.append(name)
    return found


def walk(cells: Mapping[str, Cell], todo: Sequence[str], run: Callable[[list[Cell]], str], at_once: int) -> int:
    """Run the cells of `todo`, `at_once` at a time, those furthest down the pipeline first.

    Args:
        run: runs a chain of cells, one after the other, and returns what there is to say of it. A cell stands in a
            chain with another where it waits for that one alone, and nothing else does.

    Returns: how many cells are left because `run` raised `Unfinished`.

    Raises:
        TurncoatError: cells failed; all that does not follow them was run, and each one's own message is given.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    waiting = {name: {before for before in cells[name].follows if before in todo} for name in todo}
    rank = {name: number for number, name in enumerate(dict.fromkeys(cell.stage for cell in cells.values()))}
    failed: list[str] = []
    running: dict[Future[str], list[Cell]] = {}
    done = 0
    with ThreadPoolExecutor(at_once) as pool:
        try:
            while running or any(not before for before in waiting.values()):
                while len(running) < at_once and (ready := [name for name, before in waiting.items() if not before]):
                    chain = _chain(max(ready, key=lambda name: rank[cells[name].stage]), waiting)
                    running[pool.submit(run, [cells[name] for name in chain])] = [cells[name] for name in chain]
                for job in wait(running, return_when=FIRST_COMPLETED).done:
                    finished = running.pop(job)
                    try:
                        said = job.result()
                    except Unfinished as reason:
                        said = str(reason)
                    except TurncoatError as error:
                        failed.append(str(error))
                        said = "FAILED"
                    else:
                        done += len(finished)
                        for before in waiting.values():
                            before.difference_update(cell.name for cell in finished)
                    print(f"[{done}/{len(todo)}] {finished[-1]}: {said}", flush=True)
        except BaseException:  # Ctrl-C: the cells that wait do not start
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise TurncoatError("\n".join(failed))
    return len(todo) - done


def _chain(name: str, waiting: dict[str, set[str]]) -> list[str]:
    """The cell and those behind it that wait for it alone, one after the other; they are taken out of `waiting`."""
    chain = [name]
    del waiting[name]
    while len(ready := [other for other, before in waiting.items() if before and before <= set(chain)]) == 1:
        chain += ready
        del waiting[ready[0]]
    return chain


def workers() -> int:
    """Cells at a time: TURNCOAT_WORKERS, or one a core, or two where there is a GPU.

    Raises:
        TurncoatError: TURNCOAT_WORKERS is no whole number from 1.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    default = min(2, cores) if shutil.which("nvidia-smi") else cores  # each cell holds a context on the card
    text = os.environ.get("TURNCOAT_WORKERS", str(default))
    if not text.isdigit() or int(text) < 1:
        raise TurncoatError(f"TURNCOAT_WORKERS: {text!r} is not a whole number from 1")
    return int(text)
