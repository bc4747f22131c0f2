"""What a user waits for, whole processes in turn: a stage before its work starts, a repro with nothing to do."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

ROUNDS = 5
SMALLEST = {  # what each is compared with: the least that it could cost
    "start of a training stage": "import torch",
    "start of an evaluation": "import torch",
    "start of the report": "import matplotlib",
    "idle `dvc repro`": "`dvc root`",
}
LOADED = "from turncoat.settings import load; load()"
PYTHON = {
    "import torch": "import torch",
    "import matplotlib": "import matplotlib.figure",
    "start of a training stage": f"from stages.training import train; {LOADED}",
    "start of an evaluation": f"from turncoat.evaluation import evaluate; {LOADED}",
    "start of the report": f"from turncoat.reporting.report import build; {LOADED}",
}


def commands() -> dict[str, list[float]]:
    """Seconds of each command, `ROUNDS` times in turn, after one run that does not count; prints their table.

    Nothing is timed where DVC is not installed: nobody waits for such commands there.
    """
    if shutil.which("dvc") is None:
        print("commands: not timed, DVC is not installed here")
        return {}
    runs: dict[str, Sequence[str]] = {name: (sys.executable, "-c", code) for name, code in PYTHON.items()}
    runs |= {"`dvc root`": ("dvc", "root"), "idle `dvc repro`": ("dvc", "repro", "--quiet")}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(ROUNDS + 1):
        for name, command in runs.items():
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            if done.returncode:
                sys.exit(f"{name}: {' '.join(command)} failed\n{done.stderr}")
            if number:
                seconds[name].append(time.perf_counter() - started)
    print("| command | seconds (median) | of the least it could cost |\n|---|---|---|")
    for name, times in seconds.items():
        least = SMALLEST.get(name)
        ratio = ""
        if least:
            pairs = zip(times, seconds[least], strict=True)
            ratio = f"{statistics.median(mine / other for mine, other in pairs):.1f} × {least}"
        print(f"| {name} | {statistics.median(times):.2f} | {ratio} |")
    return seconds
