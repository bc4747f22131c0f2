"""Tuned arms in the report: what was tried, what validation saw of it, what was chosen, what it cost."""

from statistics import mean
from typing import Any

from turncoat.files import read_json
from turncoat.reporting.cell import Cell
from turncoat.reporting.record import Trial
from turncoat.reporting.study import Study
from turncoat.reporting.table import Table
from turncoat.tuning import SUFFIX, Values, untuned


def table(study: Study, dataset: str) -> Table | None:
    """A row for each tuned arm that has a record on the data set; None where there is none."""
    rows, bold = [], set()
    for arm in study.arms(dataset):
        cell, record = study.of(dataset, arm)[0]  # the trials are the same for all seeds of the study
        if (found := record.tuning) is None:
            continue
        spent = _seconds(study, cell)
        rows.append(
            [
                arm,
                "; ".join(f"{said(trial.values)}: {_value(trial)}" for trial in found.trials),
                said(found.chosen),
                said(found.own),
                found.metric,
                f"{len(found.trials)} × {len(found.seeds)}",
                f"{found.forward / 1000:,.0f}",
                f"{found.backward / 1000:,.0f}",
                "–" if spent is None else f"{spent:,.0f}",
            ]
        )
        bold.add((len(rows) - 1, 2))
    if not rows:
        return None
    seeds = ", ".join(map(str, study.settings.study.tuning.seeds))
    caption = (
        f"{dataset}: tuned arms. Each point of the grid that was tried, with its accuracy in percent on the validation "
        f"split, mean over the tuning seeds ({seeds}); the chosen point, and the given one. What the trials took: "
        "forward and backward passes, in thousands of images, and seconds on the machine that ran them"
    )
    header = ["arm", "tried", "chosen", "given", "accuracy", "trials × seeds", "forward (1000)", "backward (1000)", "s"]
    return Table(f"tuning-{dataset}", caption, header, rows, frozenset(bold), "lllllrrrr")


def said(values: Values) -> str:
    """`beta 1, awp 0.005`."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def tuned_pair(study: Study, dataset: str, arms: tuple[str, str]) -> tuple[str, str] | str:
    """The tuned arms of two arms, or why a comparison of the two is not of tuned arms.

    Both must be tuned, and by the same measure: an arm that was tuned for clean accuracy is no opponent of one that was
    tuned to withstand attacks.
    """
    pair = (arms[0] + SUFFIX, arms[1] + SUFFIX)
    there = [arm for arm in pair if arm in study.settings.study.arms]
    if len(there) < 2:
        return (
            f"not tuned: both arms as given, for {f'{untuned(there[0])} alone has' if there else 'neither has'} trials"
        )
    metrics = {record.tuning.metric for arm in pair for _, record in study.of(dataset, arm) if record.tuning}
    if len(metrics) > 1:
        return (
            f"not tuned: both arms as given, for their trials went by different measures ({', '.join(sorted(metrics))})"
        )
    return pair


def how(study: Study, dataset: str, pair: tuple[str, str]) -> str:
    """`tuned: trades-tuned (beta 1), pgd-tuned (attack.radius 1.25), 5 trials each on the validation split`."""
    parts = []
    for arm in pair:
        records = study.of(dataset, arm)
        tuning = records[0][1].tuning if records else None
        parts.append(f"{arm} ({said(tuning.chosen)})" if tuning else arm)
    plan = study.settings.study.tuning
    return f"tuned: {', '.join(parts)}, {len(plan.trials)} trials each on the validation split"


def _value(trial: Trial) -> str:
    known = [value for value in trial.validation if value is not None]
    return f"{100 * mean(known):.1f}" if len(known) == len(trial.validation) else "no number"


def _seconds(study: Study, cell: Cell) -> float | None:
    path = study.root / "reports" / "times" / cell.dataset / cell.arm / f"{cell.seed}.json"
    times: dict[str, Any] = read_json(path) if path.exists() else {}
    found = times.get("seconds", times).get("tuning")
    return None if found is None else float(found)
