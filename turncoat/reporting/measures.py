"""One number with its interval: an arm's accuracy on a data set, over its seeds, in percent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from turncoat.reporting import resampling
from turncoat.reporting.record import Count, Record
from turncoat.reporting.statistics import Interval, Outcomes, by_counts, share_interval, two_way, wilson
from turncoat.reporting.study import Study

BLOCKED = " ‡"  # beside a number that a blocking flag lies on
NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}


def radius(epsilon: float) -> str:
    """`0.15`; `8/255` where it is a number of grey levels that four digits do not give exactly."""
    levels = 255 * epsilon
    short = f"{epsilon:.4g}"
    return f"{levels:.0f}/255" if abs(levels - round(levels)) < 1e-6 and abs(float(short) - epsilon) > 1e-9 else short


@dataclass(frozen=True)
class Estimate:
    """A mean accuracy over seeds with its 95 % interval, in percent; `n` is images per seed.

    The interval holds both what other seeds and what other images would change; with a single seed it is Wilson's over
    the images alone.
    """

    mean: float
    interval: Interval
    n: int
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    blocked: bool = False

    @property
    def text(self) -> str:
        """`63.1 ± 0.8`: the mean and half the interval; marked where a blocking flag lies on it."""
        return f"{self.mean:.1f} ± {self.interval.half:.1f}" + BLOCKED * self.blocked


def estimate(counts: Iterable[tuple[int, Count | None]], outcomes: Outcomes | None = None) -> Estimate | None:
    """The estimate out of (seed, count) pairs; None when a seed lacks the measure, so that means are over all seeds.

    Args:
        outcomes: (seeds, images), where they are kept; without them the images count as in a binomial, a little wide.
    """
    pairs = list(counts)
    if not pairs or any(count is None for _, count in pairs):
        return None
    found = [(seed, count) for seed, count in pairs if count is not None]
    values = [count.accuracy for _, count in found]
    n = min(count.sample[1] for _, count in found)
    if len(values) == 1:
        interval = wilson(*found[0][1].sample)
    else:
        counted = by_counts(values, mean(values), images=n)
        spread = counted if outcomes is None else replace(two_way(outcomes), value=counted.value)
        interval = share_interval(spread)
    return Estimate(
        mean=100 * mean(values),
        interval=Interval(*(100 * bound for bound in interval)),
        n=n,
        seeds=tuple(seed for seed, _ in found),
        values=tuple(100 * value for value in values),
    )


def accuracy(
    study: Study, dataset: str, arm: str, metric: str, checkpoint: str = "best", seen: Sequence[str] | None = None
) -> Estimate | None:
    """The arm's accuracy (`clean`, `worst`, an attack, a paper's own measure) over the seeds that have a record.

    Args:
        seen: which shifts `shifts-seen` are; by default those that the arm was trained for.
    """
    records = study.of(dataset, arm)
    chosen = [record.seen if seen is None else seen for _, record in records]
    counts = [
        (cell.seed, getattr(record, checkpoint).count(metric, of))
        for (cell, record), of in zip(records, chosen, strict=True)
    ]
    kept = None
    if study.task(dataset) != "classification":  # no share of images: its interval is the bootstrap's, or there is none
        drawn = resampling.single(study, [cell for cell, _ in records], metric) if checkpoint == "best" else None
        value = estimate(counts)
        if not value or not drawn:
            return None
        interval = Interval(*(100 * bound for bound in share_interval(replace(drawn, value=value.mean / 100))))
        return replace(value, interval=interval, blocked=any(record.blocking(metric) for _, record in records))
    if checkpoint == "best" and len(records) > 1 and all(count for _, count in counts):
        kept = study.outcomes([cell for cell, _ in records], metric, chosen[0])
    value = estimate(counts, kept[0] if kept else None)
    blocked = checkpoint == "best" and any(record.blocking(metric) for _, record in records)
    return replace(value, blocked=True) if value and blocked else value


def error_bar(value: Estimate) -> list[list[float]]:
    """What matplotlib wants of an error bar: distances down and up, cut off at 0 and 100 %."""
    return [[value.mean - max(value.interval.low, 0)], [min(value.interval.high, 100) - value.mean]]


def leader(named: Mapping[str, Estimate]) -> str:
    """Who is highest, as far as intervals say: `trades has the highest mean, 69.5 ± 2.9 %, not apart from pgd`.

    Two are apart when their intervals do not overlap; a name that stands alone is told by its value.
    """
    top = max(named, key=lambda name: named[name].mean)
    near = [name for name, value in named.items() if name != top and value.interval.high >= named[top].interval.low]
    said = f"{named[top].mean:.1f} ± {named[top].interval.half:.1f} %"
    if len(named) == 1:
        return f"{top} has {said}"
    if named[top].blocked:
        return f"{top} has the highest mean, {said}, but a blocking flag lies on it"
    if not near:
        return f"{top} is highest with {said}, apart from all others"
    others = ", ".join(near[:3]) + (f" and {len(near) - 3} more" if len(near) > 3 else "")
    return f"{top} has the highest mean, {said}, not apart from {others}"


def curve(study: Study, dataset: str, arm: str) -> list[tuple[float, Estimate]]:
    """The security curve: (absolute epsilon, accuracy under PGD-20) by rising epsilon, the clean accuracy at 0."""
    records = [(cell.seed, record) for cell, record in study.of(dataset, arm)]
    points: dict[float, list[tuple[int, Count | None]]] = {}
    for seed, record in records:
        for point in record.best.curve:
            points.setdefault(point.epsilon, []).append((seed, point))
    found = [(epsilon, estimate(pairs)) for epsilon, pairs in sorted(points.items()) if len(pairs) == len(records)]
    found.insert(0, (0.0, accuracy(study, dataset, arm, "clean")))
    blocked = any(record.blocking("pgd-20") for _, record in records)
    return [(epsilon, replace(value, blocked=blocked and epsilon > 0)) for epsilon, value in found if value]


def epochs(study: Study, dataset: str, arm: str, column: str) -> list[tuple[int, float]]:
    """(epoch, percent) of a validation column, the mean over seeds, for epochs at which every seed was looked at."""
    histories = [study.history(cell) for cell, _ in study.of(dataset, arm)]
    runs = [{row["epoch"]: row[column] for row in history if column in row} for history in histories]
    common = [epoch for epoch in runs[0] if all(epoch in run for run in runs)] if runs else []
    return [(epoch, 100 * mean([run[epoch] for run in runs])) for epoch in common]


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; the values are there by contract."""
    return sum(values) / len(values)


def training_passes(record: Record) -> float:
    """What training cost in all, in forward passes of one image; a backward pass counts as two of them."""
    cost = record.cost.training
    return cost.images * (cost.forward + 2 * cost.backward)


def summary(study: Study) -> dict[str, Any]:
    """The content of `reports/summary.json`: {dataset: {arm: {clean, pgd-20, autoattack, worst, n, seeds}}}; percent.

    Of segmentation and detection they are mIoU or AP.
    The other attacks stand in the tables only.
    """
    table: dict[str, Any] = {}
    for dataset in study.datasets:
        for arm in study.arms(dataset):
            row: dict[str, Any] = {}
            for metric in ("clean", "pgd-20", "autoattack", "worst"):
                value = accuracy(study, dataset, arm, metric)
                if value is not None:
                    row[metric] = round(value.mean, 2)
                    row["n"], row["seeds"] = value.n, len(value.seeds)
            n, seeds = row.pop("n"), row.pop("seeds")
            table.setdefault(dataset, {})[arm] = row | {"n": n, "seeds": seeds}
    return table
