"""Run the study that params.yaml describes: `dvc repro`, with independent cells side by side.

Not a stage itself. One single-threaded process a core beats one process with a thread a core on small networks; each
cell is a `dvc repro` of its own, so a last plain `dvc repro` finds only the report left to do, and the measured
values are those of running one after another.

  TURNCOAT_WORKERS   cells at a time (default: the number of cores, 2 where there is a GPU); 1: one after another
  TURNCOAT_CLUSTER   slurm: cells as jobs of a cluster (docs/cluster.md)
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from stages import warm
from stages.common import parse, run
from stages.pipeline import Cell, cells
from stages.places import check_places, make_places
from stages.walk import LOGS, behind, walk, workers
from turncoat.errors import TurncoatError
from turncoat.reading import read_yaml
from turncoat.settings import Settings, load


def main() -> None:
    parse(__doc__)
    settings = load()  # a wrong setting is told at once, and a folder that DVC would stumble over
    check_places(settings.study.every)
    make_places()
    at_once = workers()
    plan = {name: cell for name, cell in cells(read_yaml("params.yaml")).items() if cell.stage != "report"}
    cluster = os.environ.get("TURNCOAT_CLUSTER", "")
    if cluster not in ("", "slurm"):
        raise TurncoatError(f"TURNCOAT_CLUSTER={cluster}: not known; it is slurm, or unset for this machine")
    with warm.offered(not cluster, dense=bool(settings.study.dense.datasets)) as environment:
        if cluster:
            from stages.cluster.head import repro as on_cluster

            sys.exit(on_cluster(settings, plan, environment))
        from stages.cluster.queue import check_alone

        check_alone()
        signal.signal(signal.SIGTERM, stop)
        sys.exit(repro(settings, plan, at_once, environment))


def stop(number: int, _: object) -> None:
    """End all that was started here, which `kill`, unlike Ctrl-C, does not reach: else cells would go on unseen."""
    import psutil

    signal.signal(number, signal.SIG_IGN)
    for _ in range(3):  # one may have been starting another
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.terminate()
    print("ended by a signal; what was begun goes on when `make repro` is run again", file=sys.stderr, flush=True)
    sys.exit(128 + number)


def repro(settings: Settings, plan: dict[str, Cell], at_once: int, environment: dict[str, str]) -> int:
    """Run what is out of date; the exit status of the last plain `dvc repro`."""
    take_inputs(plan, environment, settings.own_files)
    stale = outdated(environment)
    walk(plan, behind(plan, stale), partial(through_dvc, environment), at_once)
    code = subprocess.run(["dvc", "repro"], env=environment).returncode if stale else 0
    if not code:
        print("open reports/report.html")
    return code


def take_inputs(plan: Mapping[str, Cell], environment: dict[str, str], own_files: bool) -> None:
    """The first stage, which alone notices that files of one's own have changed; a torn file of DVC's is mended."""
    first = partial(through_dvc, environment, [plan["inputs"]], *["--force"] * own_files)
    try:
        first()
    except TurncoatError:
        file = torn((LOGS / "inputs.log").read_text())
        if file is None:
            raise
        file.replace(aside := LOGS / f"{file.name}.torn")
        print(f"{file}: cut short by a kill; moved to {aside}, results come out of DVC's cache", flush=True)
        first()


def torn(said: str) -> Path | None:
    """The file of DVC's own that DVC `said` it cannot read: it writes these in place, where a kill leaves a part."""
    signs = {"dvc.lock": "'./dvc.lock'", ".dvc/tmp/rwlock": "RWLock-file '.dvc/tmp/rwlock'"}
    return next((Path(name) for name, sign in signs.items() if sign in said), None)


def outdated(environment: dict[str, str]) -> set[str]:
    """Names of the cells that `dvc repro` would run now (those behind them in the pipeline not included)."""
    status = subprocess.run(["dvc", "status", "--json"], capture_output=True, text=True, env=environment)
    if status.returncode:
        raise TurncoatError(status.stderr.strip() or "dvc status failed")
    return set(json.loads(status.stdout))


def through_dvc(environment: dict[str, str], chain: list[Cell], *options: str) -> str:
    """One `dvc repro` of the cells themselves, which runs those that are not up to date; seconds, and what they said.

    Raises:
        TurncoatError: one failed; the last lines of its log, and where that is.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    done = subprocess.run(
        ["dvc", "--wait-for-lock", "repro", "--single-item", *options, *map(str, chain)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    log = LOGS / f"{chain[-1]}.log"
    log.write_text(done.stdout)
    # a stage's own lines; DVC says "Running stage", "Updating lock file" and the like around them
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        begun = [line.split("'")[1] for line in lines if line.startswith("Running stage '")]
        raise TurncoatError("\n    ".join([f"{[str(chain[-1]), *begun][-1]} failed; see {log}", *lines[-3:]]))
    said = [line for line in lines if ": " in line and not line.startswith((" ", ">"))]
    return f"{time.monotonic() - started:.0f} s  {said[-1] if said else ''}"


if __name__ == "__main__":
    run(main)
