"""The papers' own figures: what they say, that they come out the same, and when they are absent."""

from pathlib import Path

import pytest

from tests.reporting import synthetic
from turncoat.papers.advamd import figures as advamd
from turncoat.papers.mart import figures as mart
from turncoat.papers.rat import figures as rat
from turncoat.papers.reverse import figures as reverse
from turncoat.reporting.study import Study

ANALYSED = [
    (advamd.mismatch, "At the last batch norm standard has the most, 3.00, mediates 0.03."),
    (advamd.surface, "The loss bends the least for standard: 3.0."),
    (advamd.by_vulnerability, "5 bins of 20, 20, 20, 20, 20 images, clean and under PGD-20"),
    (rat.matrices, "before 60.0 %; after: the same ones 20.0 %; after: made anew 30.0 %"),
    (rat.fgsm_curves, "Accuracy of 4 arms on 100 images of digits under FGSM"),
    (reverse.confidence, "familiar 70.0 to 80.0 %; shifts seen 70.0 to 80.0 %"),
    (reverse.reversed_images, "1 mended, 1 broken"),
]
FROM_RECORDS = [
    (mart.subsets, "misclassified, weaker: "),
    (mart.attacks, "Under PGD-20 mart has the highest mean, "),
    (rat.class_perturbations, "sgd 55 %"),
    (rat.universal, "standard gives way the most: 30 % on average"),
    (reverse.severities, "At the strongest, blur leaves reverse the least: 77.7 %"),
    (reverse.shifts, "Accuracy of 9 arms on digits under 2 shifts"),
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
