"""What one arm has over another on the same images: a difference of two accuracies with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from turncoat.reporting import resampling
from turncoat.reporting.cell import Cell
from turncoat.reporting.measures import BLOCKED
from turncoat.reporting.record import Count
from turncoat.reporting.statistics import Interval, Mean, by_counts, paired
from turncoat.reporting.study import Study


@dataclass(frozen=True)
class Contrast:
    """Accuracy of one arm minus that of another, in percentage points, the mean over the seeds that both have."""

    mean: Mean
    n: int
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    flags: tuple[str, ...] = ()  # blocking ones, on what either arm rests on, in words
    notes: tuple[str, ...] = ()  # those of `flags` that are of the measured attack alone

    @property
    def effect(self) -> float:
        """The mean difference in percentage points."""
        return self.mean.value

    @property
    def interval(self) -> Interval:
        """Its 95 % interval over seeds and images; with a single seed, over images alone."""
        return self.mean.interval

    @property
    def text(self) -> str:
        """`+2.4 ± 1.1`: the effect and half the interval; marked where a blocking flag lies on it."""
        return f"{self.effect:+.1f} ± {self.interval.half:.1f}".replace("-", "−") + BLOCKED * bool(self.flags)

    @property
    def apart(self) -> bool:
        """Whether the interval excludes zero, over more than one seed, and no blocking flag lies on it."""
        return not self.flags and len(self.seeds) > 1 and (self.interval.low > 0 or self.interval.high < 0)


def contrast(
    study: Study,
    dataset: str,
    arms: tuple[str, str],
    metric: str,
    against_metric: str | None = None,
    seen: list[str] | None = None,
) -> Contrast | None:
    """The first arm minus the second; None where a seed lacks the measure, or no seed has both arms.

    Paired, seed by seed and image by image; where outcomes per image are not kept, seed by seed (docs/claims.md).

    Args:
        seen: which shifts `shifts-seen` are, for both arms; by default those that the first arm was trained for.
    """
    known = [{cell.seed: cell for cell, _ in study.of(dataset, arm)} for arm in arms]
    seeds = tuple(seed for seed in known[0] if seed in known[1])
    if not seeds:
        return None
    left, right = ([cells[seed] for seed in seeds] for cells in known)
    chosen = study.records[left[0]].seen if seen is None else seen
    second = against_metric or metric
    counts: list[tuple[Count, Count]] = []
    for a, b in zip(left, right, strict=True):
        mine, theirs = study.records[a].best.count(metric, chosen), study.records[b].best.count(second, chosen)
        if mine is None or theirs is None:
            return None
        counts.append((mine, theirs))

    differences = [a.accuracy - b.accuracy for a, b in counts]
    n = min(count.sample[1] for pair in counts for count in pair)
    shares = [sum(count.accuracy for count in arm) / len(arm) for arm in zip(*counts, strict=True)]
    mean = by_counts(differences, *shares, images=n)
    if study.task(dataset) != "classification":
        drawn = resampling.paired(study, left, right, metric, second)
        if drawn is None:
            return None
        mean = replace(drawn, value=mean.value)
        return _flagged(study, [(left, metric), (right, second)], mean, n, seeds)
    by_image = study.outcomes(left, metric, chosen), study.outcomes(right, second, chosen)
    if by_image[0] and by_image[1] and by_image[0][1] == by_image[1][1]:
        mean = replace(paired(by_image[0][0], by_image[1][0]), value=mean.value)  # the counts are what a reader sees
    return _flagged(study, [(left, metric), (right, second)], mean, n, seeds)


def _flagged(
    study: Study, sides: Sequence[tuple[Sequence[Cell], str]], mean: Mean, n: int, seeds: tuple[int, ...]
) -> Contrast:
    """The contrast with what flags lie on its two sides, cells and the metric that each was measured by."""
    met = [(cell, name) for cells, name in sides for cell in cells]
    on = [(cell, flag) for cell, name in met for flag in study.records[cell].blocking(name)]
    told = {f"{cell}: {flag.name}: {flag.detail}": flag.attack is not None for cell, flag in on}
    notes = tuple(text for text, alone in told.items() if alone)
    cells = tuple(dict.fromkeys(cell for cell, _ in met))
    return Contrast(mean.times(100), n, seeds, cells, tuple(told), notes)
