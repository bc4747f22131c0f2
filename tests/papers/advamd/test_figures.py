"""AdvAmd's figures: what they say, that they come out the same, and when they are absent."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reporting import synthetic
from turncoat.papers.advamd import figures
from turncoat.papers.chapters import load
from turncoat.reporting import paper_figures
from turncoat.reporting.study import Study
from turncoat.reporting.style import looks, paper


def test_the_branches_gap_is_drawn_where_there_are_branches(study: Study, tmp_path: Path) -> None:
    assert synthetic.draw(study, figures.branches) is None
    synthetic.trained(tmp_path, "advamd", "branch_gap", 0.02, 0.03, 0.07)
    synthetic.trained(tmp_path, "advamd-uniform", "branch_gap", 0.0, 0.0, 0.0)  # shared statistics: no gap to draw
    picture = synthetic.draw(study, figures.branches)
    assert picture
    figure, alt = picture
    assert "In the last epoch: advamd 0.040." in alt
    line = figure.axes[0].lines[0]
    assert [list(line.get_xdata()), list(line.get_ydata())] == [[1, 2], [pytest.approx(0.02), pytest.approx(0.04)]]


def test_an_ablation_names_whole_and_best(study: Study) -> None:
    claims = load(["advamd"])[0].paper.claims
    with paper():
        picture = paper_figures.ablation(study, "digits", claims, looks(study.settings.study.arms))
    assert picture
    figure, alt = picture
    assert "of advamd and of 3 arms" in alt  # standard, pgd and advamd-uniform
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert texts == {"cost", "×1", "×11"}  # the passes of the synthetic records


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 8))
def test_every_image_is_in_one_bin(examples: list[tuple[float, bool]], bins: int) -> None:
    values = np.array([value for value, _ in examples])
    right = np.array([float(flag) for _, flag in examples])
    counts, share = figures.binned(values, right, bins)
    assert len(counts) == len(share) == bins
    assert sum(counts) == len(examples)
    assert np.nansum(share * counts) == pytest.approx(right.sum())
    for place in range(bins):
        low, high = place / bins, (place + 1) / bins
        members = [flag for value, flag in examples if low <= value and (value < high or place == bins - 1)]
        if not any(abs(value * bins - round(value * bins)) < 1e-9 for value in values):
            assert counts[place] == len(members)


@pytest.mark.parametrize(("values", "right"), [([0.0] * 3, [1.0] * 2), ([1.5], [1.0])])
def test_a_vulnerability_that_does_not_fit_is_refused(values: list[float], right: list[float]) -> None:
    with pytest.raises(ValueError, match=r"a value in \[0, 1\] is wanted for each image"):
        figures.binned(np.array(values), np.array(right))
