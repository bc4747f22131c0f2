"""Intervals and tests for accuracies: one network, several seeds, two arms on the same images.

Everything works on fractions, not percent; every interval is two-sided at `LEVEL`. scipy is imported on first use.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

LEVEL = 0.95

Outcomes = npt.NDArray[Any]  # (seeds, images): bool, right or wrong; float64, in which fraction of the image's trials


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float

    @property
    def half(self) -> float:
        """Half its width: the number behind ±."""
        return (self.high - self.low) / 2


def wilson(correct: int, n: int) -> Interval:
    """Wilson's score interval for one accuracy, `correct` of `n` images; honest near 0 and 1 (Wilson 1927).

    Raises:
        ValueError: n < 1, or correct outside [0, n].
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"correct must lie in [0, n] and n be positive, got {correct} of {n}")
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(LEVEL, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def t_interval(values: Sequence[float]) -> Interval | None:
    """Student's interval for the mean over seeds; None for a single seed, which says nothing about spread."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * math.sqrt(variance / len(values))
    return Interval(mean - half, mean + half)


def image_interval(left: Outcomes, right: Outcomes) -> Interval:
    """Interval for accuracy(left) − accuracy(right), both (seeds, images) on the same images, over other *images*.

    An image is a cluster: its outcomes are averaged over the seeds first, because one image seen by three networks is
    not three images. Two pseudo-images keep the interval from collapsing when the arms never disagree (Agresti and Min
    2005).
    """
    from scipy.stats import norm

    difference = _differences(left, right)
    n = difference.size + 2
    mean = float(difference.sum()) / n
    variance = (float((difference**2).sum()) + 1) / n - mean**2
    half = float(norm.ppf((1 + LEVEL) / 2)) * math.sqrt(variance / n)
    return Interval(mean - half, mean + half)


def mcnemar(left: Outcomes, right: Outcomes) -> float:
    """Two-sided p-value of "both arms are equally often right", both (seeds, images) on the same images.

    One seed: McNemar's exact test on the images where the arms disagree. Several, or several trials an image: its
    extension to clustered pairs, an image being the cluster (Durkalski et al. 2003); with one seed and one trial that
    would be McNemar's chi-square.
    """
    if len(left) == 1 and left.dtype == right.dtype == np.bool_:
        from scipy.stats import binomtest

        only_left, only_right = int((left & ~right).sum()), int((~left & right).sum())
        return float(binomtest(only_left, only_left + only_right).pvalue) if only_left + only_right else 1.0
    from scipy.stats import chi2

    difference = _differences(left, right)
    squares = float((difference**2).sum())
    return float(chi2.sf(float(difference.sum()) ** 2 / squares, 1)) if squares else 1.0


def _differences(left: Outcomes, right: Outcomes) -> npt.NDArray[np.float64]:
    """Per image, the mean over seeds of right-or-wrong (1/0) of the left minus the right arm, in [−1, 1]."""
    if left.ndim != 2 or left.shape != right.shape or left.shape[1] == 0:
        raise ValueError(f"both arms need the same (seeds, images), got {left.shape} and {right.shape}")
    difference: npt.NDArray[np.float64] = (left.astype(np.float64) - right.astype(np.float64)).mean(axis=0)
    return difference
