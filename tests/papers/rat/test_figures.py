"""RAT's figures: what they say, that they come out the same, and when they are absent."""

import json
import shutil
from pathlib import Path

from tests.reporting import synthetic
from turncoat.papers.rat import figures
from turncoat.reporting import analysis
from turncoat.reporting.study import Study
from turncoat.reporting.style import looks, paper, save


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
