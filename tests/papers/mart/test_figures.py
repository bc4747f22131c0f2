"""MART's figures: what they say, that they come out the same, and when they are absent."""

import re
from pathlib import Path

import pytest

from tests.reporting import synthetic
from turncoat.papers.mart import figures
from turncoat.reporting.study import Study


@pytest.mark.parametrize(
    ("shares", "said", "label"),
    [
        ((), "How much of the subset called misclassified is so was not recorded.", "misclassified"),
        ((0.025, 0.05, 0.125), "2.5 to 12.5 %, by seed; the others it gets right with", "(2.5 to 12.5 % are)"),
        ((1.0, 1.0, 1.0), "the choosing network misclassifies 100 %, by seed.", "misclassified"),
    ],
)
def test_figure_one_says_how_much_of_the_subset_is_misclassified(
    study: Study, tmp_path: Path, shares: tuple[float, ...], said: str, label: str
) -> None:
    synthetic.trained(tmp_path, "misclassified-misclassified-weaker", "chosen_misclassified", *shares)
    picture = synthetic.draw(study, figures.subsets)
    assert picture
    figure, alt = picture
    assert said in alt
    assert [text.get_text() for text in figure.legends[0].texts][1].endswith(label)


def test_marts_lead_is_told_under_both_attacks(study: Study) -> None:
    picture = synthetic.draw(study, figures.attacks)
    assert picture
    assert re.search(
        r" mart minus pgd: \+[\d.]+ \[.*\] points under pgd-20, \+[\d.]+ \[.*\] points under autoattack\.", picture[1]
    )


def test_without_the_measures_there_is_no_figure(study: Study) -> None:
    assert synthetic.draw(study, figures.subsets, "standard", "mart") is None
    for cell in study.records:
        del study.records[cell].best.attacks["autoattack"]
    assert synthetic.draw(study, figures.attacks) is None
