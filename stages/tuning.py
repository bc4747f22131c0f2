"""What the trials of a tuned arm came to: the point of its grid that it is trained at (no stage itself)."""

from statistics import mean
from typing import Any

from stages.common import trial_file
from turncoat.errors import TurncoatError
from turncoat.files import read_json
from turncoat.papers.arms import measure, own_point, trials
from turncoat.settings import Settings
from turncoat.tuning import Values, choose


def settled(settings: Settings, dataset: str, arm: str) -> dict[str, Any]:
    """Read every trial of the arm on the data set and choose.

    Returns, for training.json and the record:
        grid; own: the point that was given; metric: clean or robust, what decides; seeds of the trials;
        trials: `values`, `validation` (a share a seed; None where training failed), `fingerprints`; chosen;
        forward, backward: passes of all trials together, in images.

    Raises:
        TurncoatError: a trial is missing or of another point, or none came to an end.
    """
    seeds, own, grid = settings.study.tuning.seeds, own_point(settings, dataset, arm), settings.arms[arm]["tune"]
    metric, passes = measure(settings, arm), {"forward": 0, "backward": 0}
    rows: list[dict[str, Any]] = []
    tried: list[tuple[Values, float | None]] = []
    for number, values in enumerate(trials(settings, dataset, arm)):
        kept = [_trial(dataset, arm, number, seed, values) for seed in seeds]
        found = [trial.get("validation", {}).get(metric) for trial in kept]
        rows.append(
            {"values": values, "validation": found, "fingerprints": [trial.get("fingerprint") for trial in kept]}
        )
        tried.append((values, None if None in found else mean(found)))
        for cost in (trial["cost"] for trial in kept if "cost" in trial):
            passes = {way: count + round(cost["images"] * cost[way]) for way, count in passes.items()}
    about = {"grid": grid, "own": own, "metric": metric, "seeds": seeds, "trials": rows}
    return about | {"chosen": choose(tried, grid, own)} | passes


def _trial(dataset: str, arm: str, number: int, seed: int, values: Values) -> dict[str, Any]:
    path = trial_file(dataset, arm, number, seed)
    kept: dict[str, Any] = read_json(path) if path.exists() else {}
    if kept.get("values") != values:
        command = f"python -m stages.trial --dataset {dataset} --arm {arm} --trial {number} --seed {seed}"
        raise TurncoatError(f"{path}: no trial of {values}; run `{command}`")
    return kept
