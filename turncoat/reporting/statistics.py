"""Intervals and tests for accuracies: one network, several seeds, two arms on the same images.

Seeds and images could both have come out otherwise, so an interval holds both: two crossed random effects, their
variances from the mean squares of the two-way table (Searle, Casella and McCulloch 1992, §4.4), the degrees of freedom
after Satterthwaite (1946). docs/claims.md has the formulas and how often the interval covers.

Everything works on fractions, not percent; every interval is two-sided at `LEVEL`. scipy is imported on first use.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
POWER = 0.8  # with which `seeds_needed` seeds decide, were the measured effect the true one
MOST_SEEDS = 1000  # no study has more, so none is asked for

Outcomes = npt.NDArray[Any]  # (seeds, images): bool, right or wrong; float64, in which fraction of the image's trials


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float

    @property
    def half(self) -> float:
        """Half its width: the number behind ±."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and images, with what each of the two adds to its variance."""

    value: float
    of_seeds: float  # how far other seeds would move it: variance, 0 for a single seed, which says nothing of others
    of_images: float  # how far other images would: variance
    seeds: int
    images: int

    @property
    def error(self) -> float:
        """Its standard error."""
        return math.sqrt(self.of_seeds + self.of_images)

    @property
    def freedom(self) -> float:
        """Degrees of freedom, from `seeds` − 1 where seeds make up the variance to `images` − 1 where images do.

        Satterthwaite's, with the seeds' share counted 1 + 4/(seeds − 1)² times: where few seeds happen to agree, the
        plain formula takes their share for small and known, and three seeds cover 92 % (2: 87 %).
        """
        seeds, images = self.seeds - 1, max(self.images - 1, 1)
        counted = self.of_seeds * (1 + 4 / seeds**2) if seeds else 0.0
        total = counted + self.of_images
        return total**2 / ((counted**2 / seeds if seeds else 0.0) + self.of_images**2 / images) if total else images

    @property
    def critical(self) -> float:
        """How many standard errors half the interval is."""
        from scipy.stats import t

        return float(t.ppf((1 + LEVEL) / 2, self.freedom))

    @property
    def interval(self) -> Interval:
        """Student's interval with these degrees of freedom."""
        half = self.critical * self.error
        return Interval(self.value - half, self.value + half)

    @property
    def p_value(self) -> float:
        """Two-sided, of a true mean of zero: below 1 − `LEVEL` just where the interval excludes zero."""
        return self._p(abs(self.value))

    def p_level(self, margin: float) -> float:
        """Of a true mean outside ± margin (two one-sided tests): below 1 − `LEVEL` where the interval is inside."""
        return self._p(margin - abs(self.value))

    def _p(self, distance: float) -> float:
        from scipy.stats import t

        if not self.error:
            return float(distance <= 0)
        return min(1.0, 2 * float(t.sf(distance / self.error, self.freedom)))

    def times(self, factor: float) -> "Mean":
        """The same in another unit: times 100, of a fraction, in points."""
        square = factor**2
        of_seeds, of_images = square * self.of_seeds, square * self.of_images
        return replace(self, value=factor * self.value, of_seeds=of_seeds, of_images=of_images)

    def seeds_needed(self, distance: float) -> int | None:
        """How many seeds on these images decide with `POWER` whether the mean is `distance` from where it stands.

        None where `MOST_SEEDS` would not, or where one seed tells nothing of their variance.
        """
        if self.seeds < 2:
            return None
        from scipy.stats import t

        def decide(seeds: int) -> bool:
            then = replace(self, of_seeds=self.of_seeds * self.seeds / seeds, seeds=seeds)
            return (then.critical + float(t.ppf(POWER, then.freedom))) * then.error <= distance

        counts = range(2, MOST_SEEDS + 1)
        place = bisect_left(counts, True, key=decide)  # the more, the narrower
        return counts[place] if place < len(counts) else None


def two_way(values: Outcomes) -> Mean:
    """The mean of (seeds, images) values, every seed on every image, with its variance by the two-way table.

    Var(mean) = σ²(seed)/S + σ²(image)/N + σ²(rest)/(S·N). The seeds' mean square holds the first and the last of these,
    images minus rest the middle one, which is never taken for less than nothing.
    """
    table = values.astype(np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"needed are (seeds, images), got {table.shape}")
    seeds, images = table.shape
    grand, by_seed, by_image = float(table.mean()), table.mean(axis=1), table.mean(axis=0)
    rest = table - by_seed[:, None] - by_image + grand
    mean_square = float((rest**2).sum()) / max((seeds - 1) * (images - 1), 1)
    squares = seeds * float(((by_image - grand) ** 2).sum()) / max(images - 1, 1)
    of_images = max(squares - mean_square, 0.0) / (seeds * images)
    return Mean(grand, _variance(by_seed.tolist()) / seeds, of_images, seeds, images)


def paired(left: Outcomes, right: Outcomes) -> Mean:
    """accuracy(left) − accuracy(right), both (seeds, images): the same images, and seed by seed the same baseline.

    Two images more on which the arms disagree, one each way, keep the interval from collapsing when they never do
    (Agresti and Min 2005).
    """
    if left.ndim != 2 or left.shape != right.shape or left.shape[1] == 0:
        raise ValueError(f"both arms need the same (seeds, images), got {left.shape} and {right.shape}")
    found = two_way(left.astype(np.float64) - right.astype(np.float64))
    return replace(found, of_images=found.of_images + 1 / found.images**2)


def by_counts(values: Sequence[float], *shares: float, images: int) -> Mean:
    """The mean of one value a seed where no outcome an image is known: that images matter less than the binomial.

    `shares` are the accuracies that a value is made of: one, or the two of a difference, then as if of other images.
    Each counts with one image more right and one more wrong (Agresti and Caffo 2000). It is wider than `two_way`.
    """
    near = [(share * images + 1) / (images + 2) for share in shares]
    of_images = sum(share * (1 - share) for share in near) / (images + 2)
    return Mean(math.fsum(values) / len(values), _variance(values) / len(values), of_images, len(values), images)


def _variance(values: Sequence[float]) -> float:
    """Over seeds; 0 for one, which says nothing of others."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)


def wilson(correct: int, n: int) -> Interval:
    """Wilson's score interval for one accuracy, `correct` of `n` images; honest near 0 and 1 (Wilson 1927).

    Raises:
        ValueError: n < 1, or correct outside [0, n].
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"correct must lie in [0, n] and n be positive, got {correct} of {n}")
    from scipy.stats import norm

    return _score(correct / n, n, float(norm.ppf((1 + LEVEL) / 2)))


def share_interval(mean: Mean) -> Interval:
    """Of an accuracy over seeds and images: Wilson's, for as many images as would vary like that, so within [0, 1].

    Their number is p(1 − p)/Var, as of a survey in clusters (Korn and Graubard 1998), the quantile that of `Mean`.
    """
    p = mean.value
    n = p * (1 - p) / mean.error**2 if mean.error and 0 < p < 1 else mean.images
    return _score(p, n, mean.critical)


def _score(p: float, n: float, z: float) -> Interval:
    """All shares less than z of their own standard errors, of n, from p."""
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((centre + side * half) / (1 + z**2 / n) for side in (-1, 1))
    return Interval(min(max(low, 0.0), p), max(min(high, 1.0), p))  # rounding: at 0 and 1 an end is p itself


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value, adjusted for their number (Holm 1979): one below 0.05 stands among all of them."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(value) for value in multipletests(p_values, method="holm")[1]]
