"""One trial of a tuned arm: train it at one point of its grid, and keep what validation saw of it, not its weights.

Reads data/<dataset>/ and, of the study's first seed, models/<dataset>/baseline/ and pretrained/; writes
reports/trials/<dataset>/<arm>/<trial>/<seed>.json. The seed is of `study.tuning`: order, starts and draws are the
trial's own, as are first weights where an arm starts from scratch. Test images are never read. A training whose loss
is no longer a number is a trial without a value. A killed run goes on from its last checkpoint.
"""

import shutil
from pathlib import Path

from stages.common import known, parse, run, trial_file

SCRATCH = Path(".scratch/trials")


def main() -> None:
    arguments = parse(__doc__, "dataset", "arm", "trial", "seed")
    dataset, arm, trial, seed = arguments.dataset, arguments.arm, arguments.trial, arguments.seed

    from stages.training import train
    from turncoat.errors import Diverged, TurncoatError
    from turncoat.files import write_json
    from turncoat.papers.arms import at, trials
    from turncoat.settings import load

    settings = load()
    known("dataset", dataset, dict(settings.datasets))
    known("arm", arm, {name: raw for name, raw in settings.arms.items() if "tune" in raw})
    points = trials(settings, dataset, arm)
    if trial >= len(points):
        raise TurncoatError(f"--trial {trial}: arms.{arm} has {len(points)} of them, from 0")
    name = f"{arm}-trial-{trial}"  # a name of its own: its checkpoints are no other trial's
    folder = SCRATCH / dataset / name / str(seed)
    tried = at(settings, arm, points[trial], name)
    kept = {"cell": {"dataset": dataset, "arm": arm, "trial": trial, "seed": seed}, "values": points[trial]}
    try:
        summary = train(tried, dataset, name, seed, founded_on=settings.study.seeds[0], folder=folder)
    except Diverged as error:
        print(f"{dataset}/{name}/{seed}: {error}", flush=True)
        kept |= {"failed": str(error)}
    else:
        kept |= {
            "validation": summary["validation"]["best"],
            "best_epoch": summary["best_epoch"],
            "cost": summary["cost"],
            "fingerprint": summary["fingerprint"],
        }
    shutil.rmtree(folder, ignore_errors=True)
    write_json(trial_file(dataset, arm, trial, seed), kept)


if __name__ == "__main__":
    run(main)
