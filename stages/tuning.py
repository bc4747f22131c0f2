"""What the trials of a tuned arm came to: the point of its grid that it is trained at (no stage itself)."""

from statistics import mean
from typing import Any

from stages.common import trial_file
from turncoat.errors import TurncoatError
from turncoat.files import read_json
from turncoat.papers.arms import own_point, trials
from turncoat.settings import Settings
from turncoat.tuning import choose


def settled(settings: Settings, dataset: str, arm: str) -> dict[str, Any]:
    """Read every trial of the arm on the data set and choose.

    Returns, for training.json and the record:
        grid; own: the point that was given; metric: the measure of validation that decides; seeds of the trials;
        trials: `values`, `validation` (a share a seed; None where training failed), `fingerprints`; chosen;
        forward, backward: passes of all trials together, in images.

    Raises:
        TurncoatError: a trial is missing or of another point, or none came to an end.
    """
    seeds, own = settings.study.tuning.seeds, own_point(settings, dataset, arm)
    metric, rows, passes = "", [], {"forward": 0, "backward": 0}
    for number, values in enumerate(trials(settings, dataset, arm)):
        found = []
        for seed in seeds:
            path = trial_file(dataset, arm, number, seed)
            kept = read_json(path) if path.exists() else {}
            if kept.get("values") != values:
                command = f"python -m stages.trial --dataset {dataset} --arm {arm} --trial {number} --seed {seed}"
                raise TurncoatError(f"{path}: no trial of {values}; run `{command}`")
            metric = kept["metric"]
            found.append(kept.get("validation", {}).get(metric.removeprefix("validation_")))
            for way in passes:
                passes[way] += round(kept["cost"]["images"] * kept["cost"][way]) if "cost" in kept else 0
        prints = [read_json(trial_file(dataset, arm, number, seed)).get("fingerprint") for seed in seeds]
        rows.append({"values": values, "validation": found, "fingerprints": prints})
    grid = settings.arms[arm]["tune"]
    means = [(row["values"], None if None in row["validation"] else mean(row["validation"])) for row in rows]
    return {
        "grid": grid,
        "own": own,
        "metric": metric,
        "seeds": seeds,
        "trials": rows,
        "chosen": choose(means, grid, own),
        **passes,
    }
