"""A quarter of an hour of a GPU, from packing to results. README.md says what runs where, and the arithmetic.

python -m lease pack                                       here: .scratch/lease/ with both halves of the images
python -m lease first  --minutes 5 --out $OUT              there: tests, benchmark, one short cell, speeds
python -m lease second --minutes 8 --out $OUT              there: cells of the study, as many as the time allows
python -m lease join FOLDER [FOLDER ...]                   here: what came back, as a study with its report
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lease import images, parcels, recipe
from lease.clock import Clock
from stages.common import run
from turncoat.errors import TurncoatError
from turncoat.files import read_json, write_json

TRAVELS = Path(".scratch/lease")
MIB = 2**20
ROOT = Path(__file__).parents[1]
GPU_TESTS = ("tests/training/test_compiled.py", "tests/training/test_precision.py")


def main() -> None:
    given = arguments()
    match given.command:
        case "pack":
            pack(given)
        case "first":
            first(given, Clock(given.minutes))
        case "second":
            second(given, Clock(given.minutes))
        case "join":
            join(given.folders, given.into)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (
        ("pack", "images into .scratch/lease/"),
        ("first", "call one"),
        ("second", "call two"),
        ("join", "back"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("--scale", choices=("full", "tiny"), default="full", help="tiny: digits, for a rehearsal")
        if name == "pack":
            command.add_argument("--most", type=float, default=60.0, help="MiB that may travel a call (default: 60)")
        elif name == "join":
            command.add_argument("folders", nargs="+", type=Path, help="what came back of each call")
            command.add_argument("--into", type=Path, default=TRAVELS / "study", help="(default: %(default)s)")
        else:
            command.add_argument("--minutes", type=float, required=True, help="of this call; work stops 40 s before")
            command.add_argument("--out", type=Path, required=True, help="an empty folder; what is in it travels back")
            command.add_argument("--files", type=int, default=8, help="that may come back (default: 8)")
            command.add_argument("--file-size", type=float, default=16.0, help="MiB of each at most (default: 16)")
    return parser.parse_args()


def pack(given: argparse.Namespace) -> None:
    """Make the data set as the stage `download` does, and its halves."""
    work = prepared(TRAVELS / "pack", given.scale, epochs=1, compute={}, first=True)
    name = recipe.plan_of(given.scale)["dataset"]
    stage(work, "inputs")
    stage(work, "download", "--dataset", name)
    sizes = images.pack(work / "data" / name, TRAVELS)
    for number, size in enumerate(sizes, 1):
        print(f"{TRAVELS}/half-{number}: {size / MIB:.1f} MiB")
        if size > given.most * MIB:
            raise TurncoatError(f"half {number} is larger than --most {given.most:g} MiB")


def first(given: argparse.Namespace, clock: Clock) -> None:
    """What is measured before the study: tests of the GPU, a short cell in two precisions, the benchmark."""
    log = Log(given.out, clock)
    work = prepared(TRAVELS / "first", given.scale, epochs=1, compute={}, first=True)
    name = recipe.plan_of(given.scale)["dataset"]
    stage(work, "inputs")
    images.first(TRAVELS, work / "data" / name)
    arrived(work, name)
    log.say("unpacked")
    log.run("tests", [sys.executable, "-m", "pytest", "-q", "-x", *GPU_TESTS], ROOT, clock.left / 4)
    log.run("cell", [sys.executable, "-m", "stages.bare", "--minutes", f"{clock.left / 120:.2f}"], work, clock.left)
    bench = given.out / "bench.json"
    weights = next((work / "models" / name).glob("*/0/best.safetensors"), Path("none"))
    epsilon = read_json(work / "data/settings.json")["datasets"][name]["threat"]["epsilon"]
    command = [sys.executable, "-m", "benchmarks", "--model", str(weights.resolve()), "--data", f"data/{name}"]
    command += ["--epsilon", str(epsilon), "--images", "128", "--quick", "--compiled", "--out", str(bench.resolve())]
    if _there("torchattacks"):
        command += ["--peers", sys.executable, "--library", "torchattacks"]
    log.run("bench", command, work, clock.left)
    measured = recipe.speeds(work, bench, given.scale)
    write_json(TRAVELS / "speeds.json", measured)
    write_json(given.out / "speeds.json", measured)
    log.run(
        "pack", [sys.executable, "-m", "stages.bare", "--pack", str((given.out / "first.tar.gz").resolve())], work, 30
    )
    log.say("ended")


def second(given: argparse.Namespace, clock: Clock) -> None:
    """The study: cells in the order of study.yaml, until the time is over; then what they made, within the limits."""
    log = Log(given.out, clock)
    measured = read_json(TRAVELS / "speeds.json")
    work = TRAVELS / "second"
    name = recipe.plan_of(given.scale)["dataset"]
    dataset = images.both(TRAVELS, work / "data" / name)
    epochs = recipe.epochs(given.scale, measured, len(dataset.train), clock.left)
    prepared(work, given.scale, epochs=epochs, compute=measured["compute"], first=False)
    stage(work, "inputs")
    arrived(work, name)
    log.say(f"unpacked; {epochs} epochs of fine-tuning by the measured speed")
    log.run("study", [sys.executable, "-m", "stages.bare", "--minutes", f"{clock.left / 60:.2f}"], work, clock.left + 5)
    results = TRAVELS / "results.tar.gz"
    log.run("pack", [sys.executable, "-m", "stages.bare", "--pack", str(results.resolve())], work, 30)
    most, room = int(given.file_size * MIB), given.files - 2  # beside params.yaml and log.json
    (given.out / "params.yaml").write_bytes((work / "params.yaml").read_bytes())
    room -= len(parcels.cut(results, given.out, most)) if results.is_file() else 0
    room -= weights(work, given.out, most, room)
    log.say("ended")
    if room < 0:
        raise TurncoatError(f"{given.out}: {-room} files more than --files {given.files} allows")


def weights(work: Path, out: Path, most: int, room: int) -> int:
    """Pack the weights of finished networks in half precision, in the order of the study; how many files they made."""
    plan = read_json(work / "data/settings.json")["study"]
    chosen: list[tuple[str, Path]] = []
    size = 0
    for dataset in plan["datasets"]:
        for arm in plan["arms"]:
            done = work / f"reports/records/{dataset}/{arm}/0/record.json"
            full = work / f"models/{dataset}/{arm}/0/best.safetensors"
            if not (done.is_file() and full.is_file()):
                continue
            small = parcels.cast(full, TRAVELS / f"half/{dataset}/{arm}.safetensors", torch.float16)
            if parcels.parts(size + small.stat().st_size + 20_480, most) > room:
                break
            size += small.stat().st_size + 1_024
            chosen.append((f"weights/{dataset}/{arm}/0/best.safetensors", small))
    return len(parcels.cut(parcels.wrap(chosen, TRAVELS / "weights.tar"), out, most)) if chosen and room > 0 else 0


def join(folders: Sequence[Path], into: Path) -> None:
    """Put what came back of one call or several together, and make the report of it."""
    for path in parcels.joined(folders, into):
        if path.name.endswith((".tar", ".tar.gz")) and not path.name.startswith("first"):
            with tarfile.open(path) as packed:
                packed.extractall(into, filter="data")
    for path in into.glob("weights/**/*.safetensors"):
        parcels.cast(path, path, torch.float32)  # what 16 bits lost stays lost
    linked(into)
    stage(into, "inputs")
    stage(into, "report", "--partial")
    print(f"{into}/reports/report.html")


def prepared(work: Path, scale: str, epochs: int, compute: dict[str, Any], first: bool) -> Path:
    """A folder like a checkout, with a params.yaml of its own: the checkout and its results stay as they are."""
    linked(work)
    recipe.write(recipe.params(scale, ROOT / "params.yaml", epochs, compute, first), work / "params.yaml")
    return work


def linked(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    for name in ("dvc.yaml", "stages", "turncoat", "benchmarks"):
        if not (work / name).exists():
            (work / name).symlink_to(ROOT / name)


def stage(work: Path, name: str, *more: str) -> None:
    """Run a stage in a work folder.

    Raises:
        TurncoatError: what it said, where it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{name}", *more], cwd=work, env=environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise TurncoatError(f"stages.{name} failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


def arrived(work: Path, name: str) -> None:
    """Mark the data set as downloaded: it came another way, and its checksums hold."""
    code = "from stages.bare import *; plan = cells(read_yaml('params.yaml')); marks = Marks(plan); "
    code += f"marks.set(plan['inputs']); marks.set(plan['download@{name}'])"
    subprocess.run([sys.executable, "-c", code], cwd=work, env=environment(), check=True)


def environment() -> dict[str, str]:
    cache = (TRAVELS / "graphs").resolve()  # compiled once for all cells
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
                         "TURNCOAT_TRACKING": "off", "TORCHINDUCTOR_CACHE_DIR": str(cache)}  # fmt: skip


def _there(module: str) -> bool:
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


class Log:
    """What was done when, in log.json, written after every step: a machine may be taken away at any moment."""

    def __init__(self, out: Path, clock: Clock) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.file, self.clock = out / "log.json", clock
        self.steps: list[dict[str, object]] = []

    def say(self, what: str, **more: object) -> None:
        self.steps.append({"second": round(self.clock.gone, 1), "what": what} | more)
        print(json.dumps(self.steps[-1]), flush=True)
        write_json(self.file, {"minutes": self.clock.minutes, "steps": self.steps})

    def run(self, what: str, command: list[str], work: Path, seconds: float) -> None:
        """Run a command for so long at most; one that fails costs only itself."""
        if seconds <= 0:
            self.say(what, came="no time left")
            return
        try:
            done = subprocess.run(
                command, cwd=work, env=environment(), timeout=seconds, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            came, text = f"exit status {done.returncode}", done.stdout
        except subprocess.TimeoutExpired as error:
            came, text = f"stopped after {seconds:.0f} s", error.stdout or b""
        self.say(what, came=came, tail=text.decode(errors="replace")[-2000:])


if __name__ == "__main__":
    run(main)
