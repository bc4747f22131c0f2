"""What every stage's command line shares: cell arguments, one-line errors, folders of a cell."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from turncoat.errors import TurncoatError, there_are

COMPILED = Path(".scratch/compiled")
LESS_MEMORY = (
    "nothing was made smaller: in params.yaml, lower batch_size (of datasets.<name>.training or finetuning, or of the "
    "arm's own training; of the suite in an evaluation), or set TURNCOAT_WORKERS=1 if several cells share the memory"
)


def run(main: Callable[[], None]) -> None:
    """Run a stage; a `TurncoatError`, or a lack of memory, is told in one message, and the exit status is 2.

    Compiled graphs are kept beside the study's unfinished work: its first cell compiles them, all others read them.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(COMPILED.absolute()))
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
    """Parse the cell arguments that a stage takes, out of `dataset`, `arm`, `trial` and `seed`."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    about = {
        "dataset": "a name under `datasets` in params.yaml",
        "arm": "a name under `arms` in params.yaml",
        "trial": "a whole number from 0: which point of the arm's grid",
        "seed": "a whole number from 0; all randomness of the cell hangs on it",
    }
    for name in names:
        kind = _whole if name in ("trial", "seed") else str
        parser.add_argument(f"--{name}", required=True, type=kind, help=about[name])
    return parser.parse_args()


def _whole(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def known(what: str, name: str, names: dict[str, object]) -> None:
    """Refuse a command-line name that params.yaml does not define.

    Raises:
        TurncoatError: lists the names that there are.
    """
    if name not in names:
        raise TurncoatError(f"--{what} {name}: not defined in params.yaml; {there_are(name, names)}")


def data_folder(dataset: str) -> Path:
    return Path("data") / dataset


def perturbed_folder(dataset: str, seed: int) -> Path:
    return Path("data") / "perturbed" / dataset / str(seed)


def model_folder(dataset: str, arm: str, seed: int) -> Path:
    return Path("models") / dataset / arm / str(seed)


def pretrained_folder(dataset: str, seed: int) -> Path:
    return Path("models") / dataset / "pretrained" / str(seed)


def trial_file(dataset: str, arm: str, trial: int, seed: int) -> Path:
    return Path("reports") / "trials" / dataset / arm / str(trial) / f"{seed}.json"


def times_file(dataset: str, arm: str, seed: int) -> Path:
    return Path("reports") / "times" / dataset / arm / f"{seed}.json"


def record_folder(dataset: str, arm: str, seed: int) -> Path:
    return Path("reports") / "records" / dataset / arm / str(seed)
