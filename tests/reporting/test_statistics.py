"""Intervals and tests against statsmodels, against formulas written out, and against what they must do at the edges.

How often intervals cover is tried on drawn studies: quick here, in every regime in the slow one.
"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.proportion import proportion_confint

from turncoat.reporting.statistics import Mean, by_counts, holm, paired, share_interval, two_way, wilson


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_statsmodels(pair: tuple[int, int]) -> None:
    assert wilson(*pair) == pytest.approx(proportion_confint(*pair, method="wilson"), abs=1e-9)


@given(st.integers(1, 2000))
def test_an_interval_holds_the_share_itself(n: int) -> None:
    """To the last bit at the ends, or an error bar has a negative length."""
    assert wilson(n, n).high == 1
    assert wilson(0, n).low == 0


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="correct must lie in"):
        wilson(correct, n)


# ------------------------------------------------------------------------------------------------- the two-way table


def mean_squares(table: np.ndarray) -> tuple[float, float, float]:
    """Of seeds, images and the rest, by statsmodels' analysis of variance."""
    seeds, images = np.indices(table.shape)
    rows = pd.DataFrame({"y": table.ravel().astype(float), "seed": seeds.ravel(), "image": images.ravel()})
    found = anova_lm(ols("y ~ C(seed) + C(image)", rows).fit())
    return tuple(found["sum_sq"] / found["df"])  # type: ignore[return-value]


@pytest.mark.parametrize(("seeds", "images"), [(2, 30), (3, 40), (5, 25)])
def test_the_two_variances_are_those_of_an_analysis_of_variance(seeds: int, images: int) -> None:
    generator = np.random.default_rng(seeds)
    hard = generator.random(images)
    table = hard + generator.normal(0, 0.05, (seeds, 1)) + generator.normal(0, 0.2, (seeds, images)) < 0.6
    of_seed, of_image, rest = mean_squares(table)
    found, n = two_way(table), seeds * images
    assert found.value == pytest.approx(table.mean())
    assert found.of_seeds == pytest.approx(of_seed / n)
    assert found.of_images == pytest.approx((of_image - rest) / n)
    assert of_image > rest
    assert found.error**2 == pytest.approx((of_seed + of_image - rest) / n)


def test_seeds_alone_are_students_interval() -> None:
    """Every image alike: what is left is the mean of one number a seed."""
    values = np.array([0.61, 0.64, 0.66])
    found = two_way(np.repeat(values[:, None], 500, axis=1))
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert found.interval == pytest.approx(expected)
    assert found.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_images_alone_are_the_interval_over_images() -> None:
    """Every seed alike: three networks that agree on every image are worth one."""
    row = np.random.default_rng(0).normal(0.02, 0.3, 400)
    once = stats.t.interval(0.95, 399, row.mean(), stats.sem(row))
    for seeds in (1, 3, 10):
        assert two_way(np.repeat(row[None], seeds, axis=0)).interval == pytest.approx(once)


def test_satterthwaites_degrees_of_freedom() -> None:
    """Of ten seeds nearly the plain formula's; of few, fewer, for a small variance may be a lucky one."""

    def plain(mean: Mean) -> float:
        return (mean.of_seeds + mean.of_images) ** 2 / (
            mean.of_seeds**2 / (mean.seeds - 1) + mean.of_images**2 / (mean.images - 1)
        )

    alike = {seeds: Mean(0.1, 1e-4, 1e-4, seeds, 1000) for seeds in (2, 3, 5, 10)}
    assert alike[10].freedom == pytest.approx(plain(alike[10]), rel=0.06)
    assert all(mean.freedom < plain(mean) for mean in alike.values())
    assert alike[3].freedom == pytest.approx(9e-8 / (4e-8 / 2 + 1e-8 / 999))
    assert Mean(0.1, 1e-4, 0.0, 3, 1000).freedom == 2
    assert Mean(0.1, 0.0, 1e-4, 3, 1000).freedom == 999


def test_one_seed_holds_images_only() -> None:
    found = two_way(np.array([[1, 0, 1, 1, 0, 1.0]]))
    assert found.of_seeds == 0
    assert found.freedom == 5
    assert found.seeds_needed(1.0) is None


outcomes = st.integers(2, 6).flatmap(
    lambda seeds: st.tuples(*[arrays.arrays(np.bool_, (seeds, 40), elements=st.booleans()) for _ in range(2)])
)


@given(outcomes, st.floats(0.001, 0.2))
def test_p_says_what_the_interval_says(pair: tuple[np.ndarray, np.ndarray], margin: float) -> None:
    """So that no p of 7e-8 stands beside an interval that covers zero."""
    found = paired(*pair)
    low, high = found.interval
    assume(min(abs(low), abs(high), abs(margin - high), abs(margin + low)) > 1e-9)
    assert (found.p_value < 0.05) is (low > 0 or high < 0)
    assert (found.p_level(margin) < 0.05) is (-margin < low and high < margin)


@given(outcomes)
def test_an_interval_over_seeds_and_images_holds_each_of_them(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Of no two seeds or more is one source of variance left out."""
    found = paired(*pair)
    differences = (pair[0].astype(float) - pair[1]).mean(axis=1)
    assert found.of_seeds == pytest.approx(differences.var(ddof=1) / len(differences))
    assert found.of_images > 0
    assert found.error**2 == pytest.approx(found.of_seeds + found.of_images)
    assert found.seeds - 1 <= found.freedom * (1 + 1e-9)
    assert found.critical >= stats.norm.ppf(0.975)


def test_arms_that_never_disagree_have_an_interval() -> None:
    same = np.array([[True, True, False, True], [True, False, True, True]])
    found = paired(same, same)
    assert found.interval.low < 0 < found.interval.high
    assert found.p_value == 1


def test_arms_on_other_images_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same"):
        paired(np.ones((1, 3), bool), np.ones((1, 2), bool))


@pytest.mark.parametrize("rates", [(0.9, 0.85), (0.5, 0.4), (0.99, 0.99)])
def test_counts_without_images_are_wider_than_the_images(rates: tuple[float, float]) -> None:
    generator = np.random.default_rng(2)
    hard = generator.random(500)
    left, right = ((hard + generator.normal(0, 0.05, (3, 500))) < rate for rate in rates)
    known = paired(left, right)
    counted = by_counts((left.mean(1) - right.mean(1)).tolist(), left.mean(), right.mean(), images=500)
    assert counted.value == pytest.approx(known.value)
    assert counted.of_seeds == pytest.approx(known.of_seeds)
    assert counted.interval.half > known.interval.half


def test_an_accuracy_of_one_seed_by_the_score_is_wilsons() -> None:
    """With one seed and the binomial's own variance there are as many images as there are."""
    assert share_interval(Mean(0.9, 0.0, 0.09 / 400, 1, 10**9)) == pytest.approx(wilson(360, 400), abs=1e-6)
    assert share_interval(two_way(np.ones((3, 400), bool))).low == pytest.approx(wilson(400, 400).low, abs=2e-4)


def test_holm_is_the_step_down_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([]) == []


# ---------------------------------------------------------------------------------------------------------- power


def test_the_seeds_needed_have_the_power() -> None:
    """Of studies with so many seeds about 80 % find the effect; with half as many, clearly fewer."""
    generator = np.random.default_rng(3)
    effect, of_seed, of_image, images = 0.02, 0.02, 0.15, 1000
    first = Mean(effect, of_seed**2 / 3, of_image**2 / images, 3, images)
    needed = first.seeds_needed(effect)
    assert needed is not None
    assert 6 < needed < 20

    def found(seeds: int) -> float:
        rejected = 0
        for _ in range(400):
            table = effect + generator.normal(0, of_seed, (seeds, 1)) + generator.normal(0, of_image, images)
            rejected += two_way(table).p_value < 0.05
        return rejected / 400

    assert 0.74 < found(needed) < 0.88
    assert found(needed // 2) < 0.65


def test_no_number_of_seeds_mends_too_few_images() -> None:
    wide = Mean(0.01, 1e-5, 1e-4, 3, 100)  # the images alone: 0.01 from zero is one standard error
    assert wide.seeds_needed(0.01) is None
    assert wide.seeds_needed(0.05) == 2


# ------------------------------------------------------------------------------------------------------- coverage

# standard deviations of seed and image effects, and of what is left, on the scale of a normal score
REGIMES = {
    "seeds": (0.10, 0.1, 0.5),
    "images": (0.004, 1.0, 0.3),
    "both": (0.05, 0.7, 0.5),
    "both, more noise": (0.06, 0.3, 1.0),
}


def covered(
    generator: np.random.Generator,
    seeds: int,
    regime: tuple[float, float, float],
    rate: float,
    trials: int,
    studies: int,
) -> tuple[float, float]:
    """Share of drawn studies of two arms whose interval holds the true difference, and whose first arm's does.

    An arm is right on a trial where a score is above a threshold: the image's, the seed's and the trial's effects.
    Both arms share half of each image's and seed's; the truth is over all images and all seeds.
    """
    images, share = 300, np.sqrt(0.5)
    of_seed, of_image, rest = regime
    scale = np.sqrt(of_seed**2 + of_image**2 + rest**2)
    cuts = [stats.norm.ppf(rate) * scale, stats.norm.ppf(rate - 0.04) * scale]
    inside = np.zeros(2)
    for _ in range(studies):
        common_seed, common_image = generator.normal(0, of_seed, (seeds, 1)), generator.normal(0, of_image, images)
        arms = []
        for cut in cuts:
            seed = share * (common_seed + generator.normal(0, of_seed, (seeds, 1)))
            image = share * (common_image + generator.normal(0, of_image, images))
            noise = generator.normal(0, rest, (trials, seeds, images))
            right = (seed + image + noise) < cut
            arms.append(right[0] if trials == 1 else right.mean(0))
        low, high = paired(*arms).interval
        inside[0] += low <= 0.04 <= high
        low, high = share_interval(two_way(arms[0]))
        inside[1] += low <= rate <= high
    return tuple(inside / studies)


def test_intervals_cover_as_often_as_they_say() -> None:
    """Three seeds, both sources alike: the fast sibling, with room for 600 draws (standard error 0.9 %)."""
    of_difference, of_arm = covered(np.random.default_rng(11), 3, REGIMES["both"], 0.7, 1, 600)
    assert 0.92 <= of_difference <= 0.98
    assert 0.92 <= of_arm <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("regime", list(REGIMES))
@pytest.mark.parametrize(("rate", "trials"), [(0.5, 1), (0.9, 1), (0.7, 5)])
def test_intervals_cover_95_percent_within_2(seeds: int, regime: str, rate: float, trials: int) -> None:
    """Seed variance large, image variance large, both alike; near 0.5 and 0.9; single trials and pooled ones."""
    studies = 4000  # standard error 0.34 %
    of_difference, of_arm = covered(np.random.default_rng(seeds), seeds, REGIMES[regime], rate, trials, studies)
    assert 0.93 <= of_difference <= 0.97
    assert 0.92 <= of_arm <= 0.985  # Wilson's, near 0.9 a little off on purpose


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "least"), [(2, 0.91), (3, 0.93), (5, 0.93), (10, 0.93)])
def test_normal_effects_are_covered_whatever_the_shares(seeds: int, least: float) -> None:
    """Shares of the variance of the mean (seeds, images, rest) all over the triangle; mean squares drawn as such."""
    generator, images, draws = np.random.default_rng(5), 1000, 4000
    shares = [(i / 5, j / 5, 1 - (i + j) / 5) for i in range(6) for j in range(6 - i)] + [(0.9, 0.1, 0.0)]
    for of_seed, of_image, rest in shares:
        mean = generator.normal(size=draws)
        squares = (of_seed + rest) * generator.chisquare(seeds - 1, draws) / (seeds - 1)
        by_image = (of_image + rest) * generator.chisquare(images - 1, draws) / (images - 1)
        of_images = np.maximum(by_image - rest, 0)
        found = [Mean(*row, seeds, images) for row in zip(mean, squares, of_images, strict=True)]
        inside = np.mean([value.p_value >= 0.05 for value in found])
        assert least <= inside <= 0.97, (of_seed, of_image, rest)
