"""Splits: exact sizes, disjoint, stratified, a function of the seed."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from turncoat.data.splits import split, stratified_order
from turncoat.errors import TurncoatError


@st.composite
def labelled_sets(draw: st.DrawFn) -> np.ndarray:
    """Labels of 2 to 12 classes of 12 to 60 images each, in any order."""
    sizes = draw(st.lists(st.integers(12, 60), min_size=2, max_size=12))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return labels if draw(st.booleans()) else np.random.default_rng(0).permutation(labels)


@settings(deadline=None, max_examples=200)
@given(
    labels=labelled_sets(),
    shares=st.tuples(st.floats(0.1, 0.3), st.floats(0.1, 0.3), st.floats(0.1, 0.4)),
    seed=st.integers(0, 2**40),
)
def test_splits_are_exact_disjoint_and_stratified(
    labels: np.ndarray, shares: tuple[float, float, float], seed: int
) -> None:
    classes = len(np.unique(labels))
    sizes = tuple(max(classes, int(share * len(labels))) for share in shares)
    assume(sum(sizes) <= len(labels))
    parts = split(labels, None, sizes, seed)
    assert tuple(map(len, parts)) == sizes
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    share_of_class = np.bincount(labels) / len(labels)
    for part, size in zip(parts, sizes, strict=True):
        for n in (size, size // 2):  # any beginning of a split is stratified too
            assert np.abs(np.bincount(labels[part[:n]], minlength=classes) - share_of_class * n).max() <= 2


def test_the_order_inside_a_class_is_random() -> None:
    order = stratified_order(np.zeros(1000, dtype=np.int64), 0)
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1
    assert sorted(order) == list(range(1000))


def test_the_order_is_fixed_for_good() -> None:
    """Published results name a seed: what it draws must never change, with no version of any library."""
    assert stratified_order(np.arange(12) % 3, 0).tolist() == [11, 1, 3, 5, 7, 0, 2, 10, 6, 8, 4, 9]


def test_everything_is_used_when_the_sizes_add_up() -> None:
    labels = np.arange(1797) % 10
    parts = split(labels, None, (400, 400, 997), 0)
    assert sorted(np.concatenate(parts)) == list(range(1797))


def test_train_takes_what_remains() -> None:
    train, validation, test = split(np.arange(100) % 5, np.arange(50) % 5, (None, 20, None), 3)
    assert len(train) == 80
    assert sorted(np.concatenate([train, validation])) == list(range(100))
    assert test.tolist() == list(range(50))  # the official test set, whole and in its order


def test_the_official_test_set_is_sampled_class_by_class() -> None:
    official = np.repeat(np.arange(10), 100)
    _, _, test = split(np.arange(100) % 10, official, (None, 10, 50), 0)
    assert np.bincount(official[test]).tolist() == [5] * 10


def test_same_seed_same_split_and_other_seed_another() -> None:
    labels = np.arange(300) % 3
    first, again, other = (split(labels, None, (100, 50, 100), seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(np.sort(a), np.sort(b)) for a, b in zip(first, other, strict=True))


def test_fewer_training_images_leave_test_and_validation_alone() -> None:
    labels = np.arange(300) % 3
    much, little = (split(labels, None, (size, 50, 100), 0) for size in (None, 30))
    assert np.array_equal(much[1], little[1])
    assert np.array_equal(much[2], little[2])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((None, 20, None), "test: this data set has no official test set"),
        ((90, 20, 20), "train: 90 images asked for, but only 60 are left"),
        ((None, 200, 20), "validation: 200 images asked for, but only 80 are left"),
        ((None, 3, 20), "validation: 3 images cannot hold all 5 classes"),
        ((None, 40, 60), "train: 0 images cannot hold all 5 classes"),
    ],
)
def test_sizes_that_do_not_fit_name_their_field(sizes: tuple[int | None, int, int | None], message: str) -> None:
    with pytest.raises(TurncoatError, match=message):
        split(np.arange(100) % 5, None, sizes, 0)
