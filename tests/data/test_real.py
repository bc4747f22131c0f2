"""The published data sets themselves, from the folder that `TURNCOAT_MIRROR` names; skipped where it names none."""

from pathlib import Path

import numpy as np
import pytest

from turncoat.data import load, save
from turncoat.data.fetch import in_mirror
from turncoat.data.prepare import prepare
from turncoat.data.sources import raw_files
from turncoat.settings import DataSettings

# Mean and standard deviation over the whole official training set, as commonly published to four digits.
PUBLISHED = {
    "mnist": ((1, 28, 28), 60_000, (0.1307,), (0.3081,)),
    "fashion_mnist": ((1, 28, 28), 60_000, (0.2860,), (0.3530,)),
    "cifar10": ((3, 32, 32), 50_000, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((3, 32, 32), 50_000, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


@pytest.mark.parametrize("source", PUBLISHED)
def test_published_data_set(real_mirror: Path, tmp_path: Path, source: str) -> None:
    if not all(in_mirror(file, source, real_mirror) for file in raw_files(source)):
        pytest.skip(f"the mirror has no {source}")
    shape, train_images, mean, std = PUBLISHED[source]
    made = prepare(source, DataSettings(source=source, validation=1000), tmp_path / "cache")
    save(made, tmp_path / source)
    read = load(tmp_path / source)
    assert [len(part) for part in read.splits.values()] == [train_images - 1000, 1000, 10_000]
    assert read.shape == shape
    np.testing.assert_allclose(read.mean, mean, atol=1e-3)
    np.testing.assert_allclose(read.std, std, atol=1e-3)
    classes = len(read.classes)
    assert np.bincount(read.validation.labels, minlength=classes).min() >= 0.8 * 1000 / classes
    if source == "cifar10":
        assert read.classes[3] == "cat"
        assert read.test.labels[:5].tolist() == [3, 8, 8, 0, 6]  # the official order
    if source == "mnist":
        assert read.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_a_shortened_run_keeps_the_classes_balanced(real_mirror: Path, tmp_path: Path) -> None:
    settings = DataSettings(source="mnist", train=200, validation=100, test=100)
    made = prepare("mnist-short", settings, tmp_path / "cache")
    assert [len(part) for part in made.splits.values()] == [200, 100, 100]
    assert all(np.bincount(part.labels, minlength=10).min() >= 8 for part in made.splits.values())
