"""What every stage's command line shares: cell arguments, one-line errors, folders of a cell."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from turncoat.errors import TurncoatError

if TYPE_CHECKING:
    from turncoat.settings import StudySettings

LESS_MEMORY = (
    "nothing was made smaller: in params.yaml, lower batch_size (of datasets.<name>.training or finetuning, or of the "
    "arm's own training; of the suite in an evaluation), or set TURNCOAT_WORKERS=1 if several cells share the memory"
)


def run(main: Callable[[], None]) -> None:
    """Run a stage; a `TurncoatError`, or a lack of memory, is told in one message, and the exit status is 2."""
    try:
        main()
    except TurncoatError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        # by name: torch is not imported here; on a CPU its allocator raises a plain RuntimeError
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "CPUAllocator" in str(error):
            reason = next(iter(str(error).splitlines()), "no more to be had")
            print(f"out of memory: {reason}; {LESS_MEMORY}", file=sys.stderr)
            sys.exit(2)
        raise


def parse(document: str | None, *names: str) -> argparse.Namespace:
    """Parse the cell arguments that a stage takes, out of `dataset`, `arm` and `seed`."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    about = {
        "dataset": "a name under `datasets` in params.yaml",
        "arm": "a name under `arms` in params.yaml",
        "seed": "a whole number from 0; all randomness of the cell hangs on it",
    }
    for name in names:
        parser.add_argument(f"--{name}", required=True, type=_seed if name == "seed" else str, help=about[name])
    return parser.parse_args()


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def known(what: str, name: str, names: dict[str, object]) -> None:
    """Refuse a command-line name that params.yaml does not define.

    Raises:
        TurncoatError: lists the names that there are.
    """
    if name not in names:
        raise TurncoatError(f"--{what} {name}: not defined in params.yaml; there are {', '.join(names)}")


def data_folder(dataset: str) -> Path:
    return Path("data") / dataset


def perturbed_folder(dataset: str, seed: int) -> Path:
    return Path("data") / "perturbed" / dataset / str(seed)


def model_folder(dataset: str, arm: str, seed: int) -> Path:
    return Path("models") / dataset / arm / str(seed)


def pretrained_folder(dataset: str, seed: int) -> Path:
    return Path("models") / dataset / "pretrained" / str(seed)


def times_file(dataset: str, arm: str, seed: int) -> Path:
    return Path("reports") / "times" / dataset / arm / f"{seed}.json"


def record_folder(dataset: str, arm: str, seed: int) -> Path:
    return Path("reports") / "records" / dataset / arm / str(seed)


@dataclass(frozen=True)
class Work:
    """One stage of one cell."""

    stage: str
    dataset: str
    arm: str | None = None
    seed: int | None = None

    def __str__(self) -> str:
        """DVC's name of it, such as finetune@digits-pgd-0."""
        return f"{self.stage}@" + "-".join(
            str(part) for part in (self.dataset, self.arm, self.seed) if part is not None
        )

    def command(self) -> list[str]:
        """What dvc.yaml runs for it."""
        command = [sys.executable, "-m", f"stages.{self.stage}"]
        for name in ("dataset", "arm", "seed"):
            if (value := getattr(self, name)) is not None:
                command += [f"--{name}", str(value)]
        return command


def phases(study: "StudySettings") -> list[list[list[Work]]]:
    """The study up to its report: phases one after the other, of chains that may run side by side."""
    pairs = [(dataset, seed) for dataset in study.datasets for seed in study.seeds]
    cells = [(dataset, arm, seed) for seed in study.seeds for dataset in study.datasets for arm in study.arms]
    return [
        [[Work("download", dataset)] for dataset in study.datasets],
        [[Work("baseline", dataset, None, seed)] for dataset, seed in pairs],
        [[Work(stage, dataset, None, seed)] for stage in ("perturb", "pretrain") for dataset, seed in pairs],
        [[Work(stage, dataset, arm, seed) for stage in ("finetune", "evaluate")] for dataset, arm, seed in cells],
        [[Work("analyse", dataset)] for dataset in study.datasets],
    ]


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
