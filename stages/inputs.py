"""What the other stages depend on, in a form that DVC reads fast.

Writes data/code/<name>.json: the checksum of every file and folder that the stage's results rest on, so that an edit of
the library re-runs what it may have changed; and data/settings.json: params.yaml as JSON, merged with the papers' arms,
and the arms with all their defaults. DVC reads params and writes dvc.lock anew for every stage: with YAML and the
folders themselves that cost seconds a cell.
"""

from pathlib import Path

from stages.common import parse, run
from turncoat.files import checksum, write_json
from turncoat.settings import load

FOLDER = Path("data/code")
SETTINGS = ("turncoat/settings.py", "turncoat/reading.py", "turncoat/randomness.py", "stages/common.py")
NETWORKS = (*SETTINGS, "turncoat/attacks", "turncoat/models", "turncoat/data/batches.py")
TRAINING = (*NETWORKS, "stages/training.py", "turncoat/training")
RESTS_ON = {
    "download": (*SETTINGS, "stages/download.py", "turncoat/data"),
    "baseline": (*TRAINING, "turncoat/methods/base.py", "turncoat/methods/standard.py"),
    "pretrain": (*TRAINING, "stages/pretrain.py", "turncoat/methods", "turncoat/papers"),
    "finetune": (*TRAINING, "turncoat/methods", "turncoat/papers"),
    "perturb": (
        *NETWORKS,
        "stages/perturb.py",
        "turncoat/methods/shifting.py",
        "turncoat/methods/universal.py",
        "turncoat/evaluation/perturbed.py",
        "turncoat/evaluation/planned.py",
        "turncoat/evaluation/suite.py",
        "turncoat/training/compute.py",
    ),
    "evaluate": (*NETWORKS, "stages/evaluate.py", "turncoat/evaluation", "turncoat/training"),
    "analyse": (
        *NETWORKS,
        "stages/analyse.py",
        "turncoat/evaluation",
        "turncoat/methods/universal.py",
        "turncoat/papers",
    ),
    "report": (
        "stages/report.py",
        "turncoat/settings.py",
        "turncoat/reading.py",
        "turncoat/reporting",
        "turncoat/papers",
    ),
}


def main() -> None:
    parse(__doc__)

    from turncoat.papers.check import check, check_folders
    from turncoat.papers.told import FILE, told

    check_folders()
    settings = load()
    check(settings)  # a wrong setting or an incomplete paper stops here, before anything trains
    write_json(FILE, told(settings))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for stage, paths in RESTS_ON.items():
        write_json(FOLDER / f"{stage}.json", {path: checksum(path) for path in sorted(paths)})


if __name__ == "__main__":
    run(main)
