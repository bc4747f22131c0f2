"""The figures of reverse adversarial examples: what they say, that they come out the same, and when they are absent."""

from pathlib import Path

import pytest

from tests.reporting import synthetic
from turncoat.papers.reverse import figures
from turncoat.reporting.study import Study

ANALYSED = [
    (figures.confidence, "familiar 70.0 to 80.0 %; shifts seen 70.0 to 80.0 %"),
    (figures.reversed_images, "1 mended, 1 broken"),
]
FROM_RECORDS = [
    (figures.severities, "At the strongest, blur leaves reverse the least: 77.7 %"),
    (figures.shifts, "Accuracy of 9 arms on digits under 2 shifts"),
]


@pytest.mark.parametrize(("drawer", "said"), ANALYSED + FROM_RECORDS)
def test_a_figure_says_what_it_shows_and_comes_out_the_same(
    study: Study, drawer: object, said: str, tmp_path: Path
) -> None:
    synthetic.check_figure(study, drawer, said, tmp_path)


@pytest.mark.parametrize("drawer", [drawer for drawer, _ in ANALYSED])
def test_without_an_analysis_there_is_no_figure(study: Study, drawer: object, tmp_path: Path) -> None:
    (tmp_path / "reports/analysis/digits/analysis.json").unlink()
    assert synthetic.draw(study, drawer) is None


def test_without_the_measures_there_is_no_figure(study: Study) -> None:
    assert synthetic.draw(study, figures.severities, "standard", "mart") is None
