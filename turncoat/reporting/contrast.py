"""What one arm has over another on the same images: a difference of two accuracies with its interval."""

import math
from dataclasses import dataclass

from turncoat.reporting.measures import BLOCKED
from turncoat.reporting.record import Cell, Count
from turncoat.reporting.statistics import Interval, image_interval, mcnemar, t_interval, wilson
from turncoat.reporting.study import Study


@dataclass(frozen=True)
class Contrast:
    """Accuracy of one arm minus that of another, in percentage points, the mean over the seeds that both have."""

    effect: float
    interval: Interval
    p_value: float | None
    n: int
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    flags: tuple[str, ...] = ()  # blocking ones, on what either arm rests on, in words
    notes: tuple[str, ...] = ()  # those of `flags` that are of the measured attack alone

    @property
    def text(self) -> str:
        """`+2.4 ± 1.1`: the effect and half the interval; marked where a blocking flag lies on it."""
        return f"{self.effect:+.1f} ± {self.interval.half:.1f}".replace("-", "−") + BLOCKED * bool(self.flags)

    @property
    def apart(self) -> bool:
        """Whether the interval excludes zero, and no blocking flag lies on it."""
        return not self.flags and (self.interval.low > 0 or self.interval.high < 0)


def contrast(
    study: Study,
    dataset: str,
    arms: tuple[str, str],
    metric: str,
    against_metric: str | None = None,
    seen: list[str] | None = None,
) -> Contrast | None:
    """The first arm minus the second; None where a seed lacks the measure, or no seed has both arms.

    The interval is the wider of two 95 % intervals, Student's over the seeds and a paired one over the images; with one
    seed and no outcomes per image, that of two unpaired accuracies. The p-value is McNemar's (docs/claims.md).

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

    differences = [100 * (a.accuracy - b.accuracy) for a, b in counts]
    effect = math.fsum(differences) / len(differences)
    over_seeds = t_interval(differences)
    halves = [over_seeds.half] if over_seeds else []
    p_value = None
    by_image = study.outcomes(left, metric, chosen), study.outcomes(right, second, chosen)
    if by_image[0] and by_image[1] and by_image[0][1] == by_image[1][1]:
        outcomes = by_image[0][0], by_image[1][0]
        halves.append(100 * image_interval(*outcomes).half)
        p_value = mcnemar(*outcomes)
    interval = Interval(effect - max(halves), effect + max(halves)) if halves else _unpaired(*counts[0], effect)
    n = min(count.sample[1] for pair in counts for count in pair)
    met = [*((cell, metric) for cell in left), *((cell, second) for cell in right)]
    on = [(cell, flag) for cell, name in met for flag in study.records[cell].blocking(name)]
    told = {f"{cell}: {flag.name}: {flag.detail}": flag.attack is not None for cell, flag in on}
    notes = tuple(text for text, alone in told.items() if alone)
    cells = tuple(dict.fromkeys(cell for cell, _ in met))
    return Contrast(effect, interval, p_value, n, seeds, cells, tuple(told), notes)


def _unpaired(a: Count, b: Count, effect: float) -> Interval:
    """Of two accuracies on whatever images (Newcombe 1998, method 10), around their difference, in points."""
    (low_a, high_a), (low_b, high_b) = wilson(*a.sample), wilson(*b.sample)
    down = math.hypot(a.accuracy - low_a, high_b - b.accuracy)
    up = math.hypot(high_a - a.accuracy, b.accuracy - low_b)
    return Interval(effect - 100 * down, effect + 100 * up)
