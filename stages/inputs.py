"""What the other stages depend on, in a form that DVC reads fast.

Writes data/code/<name>.json: the checksum of every file and folder that the stage's results rest on, so that an edit of
the library re-runs what it may have changed; and data/settings.json: params.yaml as JSON. DVC reads params and writes
dvc.lock anew for every stage: with YAML and the folders themselves that cost seconds a cell.
"""

import hashlib
from pathlib import Path

from stages.common import parse, run
from turncoat.errors import TurncoatError
from turncoat.files import write_json
from turncoat.settings import load, read_yaml

FOLDER = Path("data/code")
SETTINGS = ("turncoat/settings.py", "turncoat/randomness.py", "stages/common.py")
NETWORKS = (*SETTINGS, "turncoat/attacks", "turncoat/models", "turncoat/data/batches.py")
TRAINING = (*NETWORKS, "stages/training.py", "turncoat/training")
RESTS_ON = {
    "download": (*SETTINGS, "stages/download.py", "turncoat/data"),
    "baseline": (*TRAINING, "turncoat/methods/base.py", "turncoat/methods/standard.py"),
    "pretrain": (*TRAINING, "stages/pretrain.py", "turncoat/methods"),
    "finetune": (*TRAINING, "turncoat/methods"),
    "perturb": (
        *NETWORKS,
        "stages/perturb.py",
        "turncoat/methods/shifting.py",
        "turncoat/methods/universal.py",
        "turncoat/evaluation/perturbed.py",
        "turncoat/evaluation/suite.py",
        "turncoat/training/compute.py",
    ),
    "evaluate": (*NETWORKS, "stages/evaluate.py", "turncoat/evaluation", "turncoat/training"),
    "analyse": (*NETWORKS, "stages/analyse.py", "turncoat/evaluation", "turncoat/methods/universal.py"),
    "report": ("stages/report.py", "turncoat/settings.py", "turncoat/reporting", "turncoat/methods"),
}


def main() -> None:
    parse(__doc__)
    load()  # a wrong setting stops here, before anything runs
    write_json(Path("data/settings.json"), read_yaml("params.yaml"))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for stage, paths in RESTS_ON.items():
        write_json(FOLDER / f"{stage}.json", {path: checksum(Path(path)) for path in sorted(paths)})


def checksum(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files; caches of Python are none of them.

    Raises:
        TurncoatError: there is nothing at this path.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    if not path.exists():
        raise TurncoatError(f"{path}: named in stages/inputs.py, and not there")
    digest = hashlib.sha256()
    for file in files or [path]:
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    run(main)
