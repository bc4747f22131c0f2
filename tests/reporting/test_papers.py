"""The figures of each paper's own analyses: what they say, that they come out the same, and when they are absent."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from tests.reporting import synthetic
from hypothesis import given
from hypothesis import strategies as st

from turncoat.reporting import (
    advamd_figures,
    analysis,
    claims,
    mart_figures,
    paper_figures,
    rat_figures,
    reverse_figures,
)
from turncoat.reporting.study import Study
from turncoat.reporting.style import looks, paper
from turncoat.settings import load

ARMS = {
    "standard": (0.97, 0.25),
    "pgd": (0.965, 0.66),
    "mart": (0.95, 0.74),
    "misclassified-correct-weaker": (0.96, 0.6),
    "misclassified-misclassified-weaker": (0.96, 0.5),
    "advamd": (0.98, 0.3),
    "advamd-uniform": (0.97, 0.3),
    "rat": (0.96, 0.4),
    "reverse": (0.97, 0.3),
}
N = 100


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(synthetic, "ARMS", ARMS)
    monkeypatch.setattr(synthetic, "ATTACKS", ["fgsm", "pgd-20", "autoattack"])
    synthetic.write(tmp_path, n=N)
    synthetic.write_analysis(tmp_path, "digits", ["rat", "standard", "advamd", "reverse"], N)
    return synthetic.study(tmp_path)


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


ANALYSED = [
    (advamd_figures.mismatch, "At the last batch norm standard has the most, 3.00, mediates 0.03."),
    (advamd_figures.surface, "The loss bends the least for standard: 3.0."),
    (rat_figures.matrices, "before 60.0 %; after: the same ones 20.0 %; after: made anew 30.0 %"),
    (rat_figures.fgsm_curves, "Accuracy of 4 arms on 100 images of digits under FGSM"),
    (reverse_figures.confidence, "familiar 70.0 to 80.0 %; shifts seen 70.0 to 80.0 %"),
    (reverse_figures.reversed_images, "1 mended, 1 broken"),
    (advamd_figures.by_vulnerability, "5 bins of 20, 20, 20, 20, 20 images, clean and under PGD-20"),
]
FROM_RECORDS = [
    (mart_figures.subsets, "misclassified, weaker: "),
    (mart_figures.attacks, "Under PGD-20 mart has the highest mean, "),
    (reverse_figures.severities, "At the strongest, blur leaves reverse the least: 77.7 %"),
    (reverse_figures.shifts, "Accuracy of 9 arms on digits under 2 shifts"),
    (rat_figures.class_perturbations, "sgd 55 %"),
    (rat_figures.universal, "standard gives way the most: 30 % on average"),
]


@pytest.mark.parametrize(("drawer", "said"), ANALYSED + FROM_RECORDS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_figure_says_what_it_shows_and_comes_out_the_same(
    study: Study, drawer: object, said: str, tmp_path: Path
) -> None:
    synthetic.check_figure(study, drawer, said, tmp_path)


def trained(root: Path, arm: str, column: str, *values: float) -> None:
    """Let training have noted a value a seed in its last two epochs."""
    for seed, value in enumerate(values):
        path = root / f"models/digits/{arm}/{seed}/history.json"
        path.write_text(json.dumps([{"epoch": epoch, column: value * epoch / 2} for epoch in (1, 2)]))


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
    trained(tmp_path, "misclassified-misclassified-weaker", "chosen_misclassified", *shares)
    picture = synthetic.draw(study, mart_figures.subsets)
    assert picture
    figure, alt = picture
    assert said in alt
    assert [text.get_text() for text in figure.legends[0].texts][1].endswith(label)


def test_marts_lead_is_told_under_both_attacks(study: Study) -> None:
    picture = synthetic.draw(study, mart_figures.attacks)
    assert picture
    assert re.search(
        r" mart minus pgd: \+[\d.]+ \[.*\] points under pgd-20, \+[\d.]+ \[.*\] points under autoattack\.", picture[1]
    )


def test_the_branches_gap_is_drawn_where_there_are_branches(study: Study, tmp_path: Path) -> None:
    assert synthetic.draw(study, advamd_figures.branches) is None
    trained(tmp_path, "advamd", "branch_gap", 0.02, 0.03, 0.07)
    trained(tmp_path, "advamd-uniform", "branch_gap", 0.0, 0.0, 0.0)  # shared statistics: no gap to draw
    picture = synthetic.draw(study, advamd_figures.branches)
    assert picture
    figure, alt = picture
    assert "In the last epoch: advamd 0.040." in alt
    line = figure.axes[0].lines[0]
    assert [list(line.get_xdata()), list(line.get_ydata())] == [[1, 2], [pytest.approx(0.02), pytest.approx(0.04)]]


@pytest.mark.parametrize("drawer", [drawer for drawer, _ in ANALYSED])
def test_without_an_analysis_there_is_no_figure(study: Study, drawer: object, tmp_path: Path) -> None:
    (tmp_path / "reports/analysis/digits/analysis.json").unlink()
    assert synthetic.draw(study, drawer) is None


def test_without_the_measures_there_is_no_figure(study: Study) -> None:
    assert synthetic.draw(study, mart_figures.subsets, "standard", "mart") is None
    assert synthetic.draw(study, reverse_figures.severities, "standard", "mart") is None
    for cell in study.records:
        del study.records[cell].best.attacks["autoattack"]
    assert synthetic.draw(study, mart_figures.attacks) is None


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
    assert synthetic.draw(study, rat_figures.matrices) is None
    picture = synthetic.draw(study, rat_figures.fgsm_curves)
    assert picture
    assert "Accuracy of 3 arms" in picture[1]
    assert analysis.load(study, "digits", "mart") is None


def test_an_ablation_names_whole_and_best(study: Study) -> None:
    of_advamd = next(paper for paper in claims.load() if paper.name == "advamd").claims
    with paper():
        picture = paper_figures.ablation(study, "digits", of_advamd, looks(study.settings.study.arms))
    assert picture
    figure, alt = picture
    assert "of advamd and of 3 arms" in alt  # standard, pgd and advamd-uniform
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert texts == {"cost", "×1", "×11"}  # the passes of the synthetic records


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 8))
def test_every_image_is_in_one_bin(examples: list[tuple[float, bool]], bins: int) -> None:
    values = np.array([value for value, _ in examples])
    right = np.array([float(flag) for _, flag in examples])
    counts, share = advamd_figures.binned(values, right, bins)
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
        advamd_figures.binned(np.array(values), np.array(right))


def test_every_arm_of_a_claims_file_is_one_of_params() -> None:
    defined: Mapping[str, object] = load().arms
    for paper_ in claims.load():
        swept = [arm for sweep in paper_.sweeps for arms in sweep.lines.values() for arm in arms]
        assert not [arm for arm in [*paper_.arms, *swept] if arm not in defined], paper_.name
