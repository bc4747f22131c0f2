"""RAT's figures: what they say, that they come out the same, and when they are absent."""

import json
import shutil
from pathlib import Path

import pytest

from tests.reporting import synthetic
from turncoat.papers.rat import figures
from turncoat.reporting import analysis
from turncoat.reporting.study import Study
from turncoat.reporting.style import looks, paper, save

ANALYSED = [
    (figures.matrices, "before 60.0 %; after: the same ones 20.0 %; after: made anew 30.0 %"),
    (figures.fgsm_curves, "Accuracy of 4 arms on 100 images of digits under FGSM"),
]
FROM_RECORDS = [
    (figures.class_perturbations, "sgd 55 %"),
    (figures.universal, "standard gives way the most: 30 % on average"),
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


def test_an_arm_trained_anew_leaves_an_older_analysis(study: Study, tmp_path: Path) -> None:
    found = analysis.load(study, "digits", "rat")
    assert found
    assert found.arms == ("rat", "standard", "advamd", "reverse")
    path = tmp_path / "reports/analysis/digits/analysis.json"
    told = json.loads(path.read_text())
    told["weights"]["rat"] = "2" * 64
    path.write_text(json.dumps(told))
    found = analysis.load(study, "digits", "rat")
    assert found
    assert found.arms == ("standard", "advamd", "reverse")
    assert synthetic.draw(study, figures.matrices) is None
    picture = synthetic.draw(study, figures.fgsm_curves)
    assert picture
    assert "Accuracy of 3 arms" in picture[1]
    assert analysis.load(study, "digits", "mart") is None


def test_figures_of_universal_perturbations(tmp_path: Path) -> None:
    synthetic.write(tmp_path, n=100)
    study = synthetic.study(tmp_path)
    drawn = looks(study.settings.study.arms)
    with paper():
        for drawer, said in (
            (figures.class_perturbations, "sgd 55 %"),
            (figures.from_to, "100 % of class 8 to 9"),
        ):
            figure, alt = drawer(study, "digits", ["mart"], drawn)  # type: ignore[misc]
            assert said in alt
            save(figure, tmp_path, drawer.__name__)
    shutil.rmtree(tmp_path / "data")
    assert figures.from_to(study, "digits", ["mart"], drawn) is None
