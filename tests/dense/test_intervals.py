"""Intervals of mIoU and AP: the bootstrap's split of the variance, against the two-way table and by simulation."""

import numpy as np
import pytest

from tests.reporting.synthetic import write_cell
from turncoat.files import read_json
from turncoat.reporting.record import Record
from turncoat.reporting.resampling import _mean, _named, drawn_weights
from turncoat.reporting.statistics import two_way


def of(values):
    """What `_drawn` gives for each seed, of a measure that is a mean over images."""
    weights = drawn_weights(values.shape[1])
    return [(float(row.mean()), weights @ row / values.shape[1], values.shape[1]) for row in values]


def sampled(seed, seeds=3, images=200, of_seed=0.02, of_image=0.3, rest=0.2):
    draw = np.random.RandomState(seed)
    table = draw.normal(0, of_seed, (seeds, 1)) + draw.normal(0, of_image, (1, images))
    return 0.5 + table + draw.normal(0, rest, (seeds, images))


def test_of_a_mean_over_images_it_is_the_two_way_table():
    for seed in range(5):
        values = sampled(seed)
        mine, table = _mean(of(values), 3), two_way(values)
        assert mine.value == pytest.approx(table.value)
        assert mine.of_seeds == pytest.approx(table.of_seeds)
        assert mine.of_images == pytest.approx(table.of_images, rel=0.35)  # 400 draws
        assert mine.interval.half == pytest.approx(table.interval.half, rel=0.15)


def test_it_covers_the_truth_as_often_as_it_says():
    hits = []
    for seed in range(300):
        low, high = _mean(of(sampled(1000 + seed)), 3).interval
        hits.append(low <= 0.5 <= high)
    assert 0.92 <= np.mean(hits) <= 0.99


def test_one_seed_speaks_of_images_alone_and_a_missing_one_of_nothing():
    values = sampled(0, seeds=1)
    alone = _mean(of(values), 1)
    assert alone.of_seeds == 0
    assert alone.error == pytest.approx(values.std(ddof=1) / np.sqrt(values.shape[1]), rel=0.15)
    assert _mean(of(values), 2) is None
    assert _mean([], 0) is None


def test_names_of_measures_say_what_they_are_of():
    attacks = ["pgd-20", "fgsm"]
    assert _named("clean", "miou", attacks) == ("miou", "clean")
    assert _named("pgd-20", "miou", attacks) == ("miou", "pgd-20")
    assert _named("ap50-pgd-20", "ap", attacks) == ("ap50", "pgd-20")
    assert _named("pixel-accuracy", "miou", attacks) == ("pixel-accuracy", "clean")


def test_a_flag_on_an_attack_lies_on_all_its_measures(tmp_path):
    write_cell(tmp_path, "digits", "pgd", 0)
    told = read_json(tmp_path / "reports/records/digits/pgd/0/record.json")
    told["flags"] = [{"name": "more-steps", "attack": "pgd-20", "detail": "x", "blocks": True}]
    read = Record.model_validate(told)
    names = ("pgd-20", "ap50-pgd-20", "ap50", "clean")
    assert [bool(read.blocking(name)) for name in names] == [True, True, False, False]
