"""Splits are looked at before they are kept; statistics agree with the plain formula."""

import logging

import numpy as np
import pytest

from turncoat.data import Split
from turncoat.data.prepare import assemble, channel_statistics, count_overlap


def random_split(rng: np.random.Generator, n: int) -> Split:
    return Split(rng.integers(0, 256, (n, 1, 4, 4), dtype=np.uint8), np.arange(n) % 2)


def test_statistics_agree_with_the_plain_formula() -> None:
    images = np.random.default_rng(0).integers(0, 200, (5000, 3, 6, 7), dtype=np.uint8)
    mean, std = channel_statistics(images)
    plain = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, plain.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, plain.std(axis=(0, 2, 3)), rtol=1e-12)


def test_overlap_counts_identical_images_of_the_later_split() -> None:
    rng = np.random.default_rng(0)
    train, test = random_split(rng, 20), random_split(rng, 10)
    test.images[:3] = train.images[0]
    assert count_overlap({"train": train, "test": test}) == {"train/test": 3}
    assert count_overlap({"test": test, "train": train}) == {"test/train": 1}


def test_a_true_duplicate_is_kept_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    train, validation, test = (random_split(rng, 50) for _ in range(3))
    test.images[4] = train.images[7]
    with caplog.at_level(logging.WARNING):
        made = assemble("toy", "mnist", ("a", "b"), (train, validation, test), {})
    assert made.overlap == {"train/validation": 0, "train/test": 1, "validation/test": 0}
    assert "toy: 1 identical images in train/test" in caplog.text
