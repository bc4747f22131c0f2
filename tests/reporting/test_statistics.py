"""Intervals and tests against statsmodels and scipy, and against what they must do at the edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.proportion import proportion_confint

from turncoat.reporting.statistics import image_interval, mcnemar, t_interval, wilson


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_statsmodels(pair: tuple[int, int]) -> None:
    assert wilson(*pair) == pytest.approx(proportion_confint(*pair, method="wilson"), abs=1e-9)


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="correct must lie in"):
        wilson(correct, n)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=8))
def test_t_interval_is_scipy(values: list[float]) -> None:
    if np.ptp(values) > 1e-3:
        expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert t_interval(values) == pytest.approx(expected)


def test_one_seed_has_no_interval_over_seeds() -> None:
    assert t_interval([97.0]) is None


def outcomes(*rows: str) -> np.ndarray:
    return np.array([[letter == "1" for letter in row] for row in rows])


def test_mcnemar_of_one_seed_is_the_exact_test() -> None:
    left, right = outcomes("1111111100"), outcomes("1000000011")
    table = [[1, 7], [2, 0]]
    assert mcnemar(left, right) == pytest.approx(reference_mcnemar(table, exact=True).pvalue)


def test_clustered_mcnemar_of_identical_seeds_is_the_chi_square_of_one() -> None:
    """Three networks that agree on every image are worth one: the test must not count an image three times."""
    generator = np.random.default_rng(0)
    left, right = generator.random((1, 200)) < 0.7, generator.random((1, 200)) < 0.6
    table = [[0, int((left & ~right).sum())], [int((~left & right).sum()), 0]]
    expected = reference_mcnemar(table, exact=False, correction=False).pvalue
    assert mcnemar(np.repeat(left, 3, 0), np.repeat(right, 3, 0)) == pytest.approx(expected)


def test_several_trials_an_image_are_one_image() -> None:
    """Of one seed, fractions are clusters: five equal trials an image say what one trial says."""
    generator = np.random.default_rng(0)
    left, right = generator.random((5, 200)) < 0.7, generator.random((5, 200)) < 0.6
    once = mcnemar(left, right)  # five seeds are averaged in the same way
    assert mcnemar(left.mean(0, keepdims=True), right.mean(0, keepdims=True)) == pytest.approx(once)


def test_arms_that_never_disagree() -> None:
    same = outcomes("1101", "1011")
    assert mcnemar(same, same) == 1.0
    interval = image_interval(same, same)
    assert interval.low < 0 < interval.high


def test_image_interval_covers_the_true_difference() -> None:
    """Of 400 studies with a true difference of 10 points, about 95 % must have it inside their interval."""
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        hard = generator.random(300)
        left = (hard + generator.normal(0, 0.1, (3, 300))) < 0.7
        right = (hard + generator.normal(0, 0.1, (3, 300))) < 0.6
        interval = image_interval(left, right)
        inside += interval.low <= 0.1 <= interval.high
    assert 0.92 <= inside / 400 <= 0.99


def test_arms_on_other_images_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same"):
        image_interval(outcomes("101"), outcomes("10"))
