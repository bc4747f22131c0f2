"""A paper's own tables and figures: whom they compare, that their numbers are the records', what flags do to them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reporting import synthetic
from turncoat.papers.rat import figures as rat_figures
from turncoat.papers.rat import tables as rat_tables
from turncoat.papers.reverse import figures as reverse_figures
from turncoat.papers.reverse import tables as reverse_tables
from turncoat.reporting import measures, paper_figures
from turncoat.reporting.claims import Sweep
from turncoat.reporting.contrast import contrast
from turncoat.reporting.measures import Estimate, leader
from turncoat.reporting.statistics import Interval
from turncoat.reporting.study import Study
from turncoat.reporting.style import looks, paper
from turncoat.reporting.table import Table
from turncoat.reporting.tables import main_table

ARMS = {
    "standard": (0.97, 0.25),
    "pgd": (0.965, 0.66),
    "rat-1000": (0.95, 0.50),
    "rat-clean-1000": (0.96, 0.24),
    "rat": (0.94, 0.40),
    "rat-clean": (0.96, 0.22),
    "rat-pgd": (0.95, 0.55),
    "rat-alone": (0.90, 0.45),
    "reverse": (0.98, 0.30),
    "adapted": (0.96, 0.25),
    "adapted-2": (0.80, 0.20),
    "reverse-2": (0.88, 0.20),
    "reverse-transferred-2": (0.84, 0.20),
    "adapted-8": (0.95, 0.20),
}
PERTURBATIONS = {"clean": "none", "pgd": "attack"}


def resolve(dataset: str, arm: str, section: str = "arms") -> dict[str, Any]:
    """Settings as their methods would have them."""
    method, *parts = arm.split("-")
    own: dict[str, Any] = {}
    if method == "rat":
        named = [PERTURBATIONS[part] for part in parts if part in PERTURBATIONS]
        own = {"subset": 1000 if "1000" in parts else 100, "perturbation": named[0] if named else "targeted"}
        own |= {"beside": "nothing" if "alone" in parts else "subset", "attack": {"steps": 10}}
    elif method in ("reverse", "adapted"):
        bits = [int(part) for part in parts if part.isdigit()]
        through = "full" if "transferred" in parts else "quantised"
        own = {"seen": ["blur"] if method == "reverse" and not bits else []}
        own |= {"quantised": {"weights": bits[0], "through": through} if bits else None}
        own |= {"adapt": "nothing"} if method == "adapted" else {}
    elif method == "pgd":
        own = {"attack": {"steps": 10}}
    return {"method": method, "start": "baseline", "training": synthetic.SCHEDULE} | own


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(synthetic, "ARMS", ARMS)
    monkeypatch.setattr(synthetic, "ATTACKS", ["fgsm", "pgd-20", "autoattack"])
    monkeypatch.setattr(synthetic, "resolve", resolve)
    synthetic.write(tmp_path, n=200)
    return tmp_path


@pytest.fixture
def study(root: Path) -> Study:
    return synthetic.study(root)


def best(root: Path, arm: str, seed: int) -> dict[str, Any]:
    """The raw measures of a record, read without the code under test."""
    found: dict[str, Any] = json.loads((root / f"reports/records/digits/{arm}/{seed}/record.json").read_text())["best"]
    return found


def percent(part: dict[str, Any], metric: str) -> float:
    """By hand: a metric's accuracy out of the raw measures."""
    if metric == "universal":
        rows = [(row["n"] - row["reached"], row["n"]) for row in part["universal"]]
    elif metric in ("blur", "noise", "shifts"):
        rows = [(row["correct"], row["n"]) for row in part["shifts"] if metric in ("shifts", row["shift"])]
    else:
        count = part.get(metric) or part["attacks"][metric]
        rows = [(count["correct"], count["n"])]
    return 100 * sum(right for right, _ in rows) / sum(n for _, n in rows)


def expected(study: Study, arm: str, metric: str) -> str:
    """`mean ± half of the interval`, from the files."""
    values = [percent(best(study.root, arm, seed), metric) for seed in synthetic.SEEDS]
    cells = [cell for cell, _ in study.of("digits", arm)]
    named = ("shifts-seen", [metric]) if metric in ("blur", "noise") else (metric, [])
    kept = study.outcomes(cells, *named)
    count = study.records[cells[0]].best.count(*named)
    assert count
    half = synthetic.half_by_hand([value / 100 for value in values], count.images or count.n, kept and kept[0])
    return f"{np.mean(values):.1f} ± {100 * half:.1f}"


def column(table: Table, name: str) -> dict[str, str]:
    """{first cell of a row: its cell under this head}."""
    return {row[0]: row[table.header.index(name)] for row in table.rows}


def test_rat_stands_beside_its_controls_by_the_number_of_images(root: Path, study: Study) -> None:
    arms = [arm for arm in study.arms("digits") if arm.startswith(("standard", "pgd", "rat"))]
    table = rat_tables.controls(study, "digits", arms)
    assert table
    assert table.header == ["arm", "|S|", "perturbed by", *rat_tables.METRICS]
    assert [row[:3] for row in table.rows] == [
        ["standard", "all", "–"],
        ["pgd", "all", "PGD-10"],
        ["rat", "100", "one perturbation a class"],
        ["rat-clean", "100", "–"],
        ["rat-pgd", "100", "PGD-10"],
        ["rat-alone", "100", "one perturbation a class"],
        ["rat-1000", "1000", "one perturbation a class"],
        ["rat-clean-1000", "1000", "–"],
    ]
    for metric in rat_tables.METRICS:
        assert column(table, metric) == {arm: expected(study, arm, metric) for arm in column(table, metric)}


def test_rat_is_compared_with_controls_of_its_own_size_and_mix(root: Path, study: Study) -> None:
    arms = [arm for arm in study.arms("digits") if arm.startswith(("standard", "pgd", "rat"))]
    assert rat_tables.compared(study, "digits", arms) == {
        "rat": ["rat-clean", "rat-pgd", "standard", "pgd"],
        "rat-1000": ["rat-clean-1000", "standard", "pgd"],
    }
    table = rat_tables.differences(study, "digits", arms)
    assert table
    for number, row in enumerate(table.rows):
        for place, metric in enumerate(table.header[2:], 2):
            pairs = [(best(root, row[0], seed), best(root, row[1], seed)) for seed in synthetic.SEEDS]
            effect = np.mean([percent(mine, metric) - percent(theirs, metric) for mine, theirs in pairs])
            said, half = (float(text) for text in row[place].replace("−", "-").split(" ± "))
            assert said == pytest.approx(effect, abs=0.0501)
            if abs(abs(effect) - half) > 0.1:  # beyond rounding
                assert ((number, place) in table.bold) is bool(abs(effect) > half)
    assert 0 < len(table.bold) < len(table.rows) * len(rat_tables.METRICS)


def test_a_suite_without_a_measure_leaves_its_column_out(study: Study) -> None:
    for record in study.records.values():
        del record.best.attacks["autoattack"]
        record.best.universal.clear()
    table = rat_tables.differences(study, "digits", study.arms("digits"))
    assert table
    assert table.header[2:] == ["clean", "fgsm", "pgd-20", "worst"]


def test_shifts_are_told_one_by_one_and_those_seen_apart(root: Path, study: Study) -> None:
    table = reverse_tables.shifts(study, "digits", study.arms("digits"))
    assert table
    assert table.header == ["arm", "clean", "seen by reverse", "unseen by reverse", "blur", "noise"]
    blur = column(table, "blur")
    assert {arm: text.removesuffix(" †") for arm, text in blur.items()} == {a: expected(study, a, "blur") for a in ARMS}
    assert [arm for arm, text in blur.items() if text.endswith(" †")] == ["reverse"]
    assert column(table, "seen by reverse") == {arm: expected(study, arm, "blur") for arm in ARMS}
    assert column(table, "unseen by reverse") == column(table, "noise")


def test_a_calibrator_is_weighed_against_the_classifier_behind_it(root: Path, study: Study) -> None:
    table = reverse_tables.gains(study, "digits", study.arms("digits"))
    assert table
    pairs = {row[0]: row[1] for row in table.rows}
    assert pairs == {"reverse": "adapted", "reverse-2": "adapted-2", "reverse-transferred-2": "adapted-2"}
    for arm, other in pairs.items():
        means = [np.mean([percent(best(root, a, s), "noise") for s in synthetic.SEEDS]) for a in (arm, other)]
        said = column(table, "noise")[arm].replace("−", "-").split(" ± ")[0]
        assert float(said) == pytest.approx(means[0] - means[1], abs=0.0501)
    assert column(table, "seen")["reverse-2"] == "–"
    assert column(table, "seen")["reverse"] + " †" == column(table, "blur")["reverse"]
    left = [arm for arm in study.arms("digits") if arm != "adapted"]
    without = reverse_tables.gains(study, "digits", left)
    assert without
    assert without.rows[0][:2] == ["reverse", "standard"]


def test_quantised_classifiers_stand_by_bits(root: Path, study: Study) -> None:
    table = reverse_tables.by_bits(study, "digits", study.arms("digits"))
    assert table
    assert [row[:3] for row in table.rows] == [
        ["8", "none", "adapted-8"],
        ["2", "none", "adapted-2"],
        ["2", "trained through", "reverse-2"],
        ["2", "transferred", "reverse-transferred-2"],
    ]
    for row in table.rows:
        assert row[3] == expected(study, row[2], "clean")
        assert row[5] == expected(study, row[2], "shifts")
    assert [row[4] == "–" for row in table.rows] == [True, True, False, False]
    assert (2, 4) in table.bold
    assert reverse_tables.by_bits(study, "digits", ["standard", "adapted-2", "reverse"]) is None


@pytest.mark.parametrize(
    ("drawer", "said"),
    [
        (rat_figures.controls, "Of RAT and its controls, clean: "),
        (reverse_figures.gains, "Points of accuracy over adapted on digits under 2 shifts at all severities"),
    ],
)
def test_a_figure_says_what_it_shows_and_comes_out_the_same(
    study: Study, drawer: Any, said: str, tmp_path: Path
) -> None:
    synthetic.check_figure(study, drawer, said, tmp_path)


def test_without_their_arms_there_are_no_tables_and_figures(study: Study) -> None:
    arms = ["standard", "pgd"]
    assert rat_tables.differences(study, "digits", arms) is None
    assert reverse_tables.shifts(study, "digits", arms) is None
    assert reverse_tables.gains(study, "digits", arms) is None
    assert synthetic.draw(study, rat_figures.controls, *arms) is None
    assert synthetic.draw(study, reverse_figures.gains, *arms) is None


def test_a_sweep_has_a_line_a_method_whatever_arms_the_study_lacks(root: Path, study: Study) -> None:
    lines = {
        "rat": ["rat", "rat-500", "rat-1000"],
        "rat-clean": ["rat-clean", "rat-clean-1000"],
        "rat-pgd": ["rat-pgd"],
    }
    swept = Sweep(setting="subset", label="|S|", metric="autoattack", lines=lines)  # type: ignore[arg-type]
    with paper():
        picture = paper_figures.sweep(study, "digits", swept, looks(list(ARMS)))
    assert picture
    assert f"rat {expected(study, 'rat', 'autoattack')} % at 100, " in picture[1]
    assert f"rat-clean {expected(study, 'rat-clean', 'autoattack')} % at 100" in picture[1]
    assert "rat-pgd" not in picture[1]  # one point is no line


def test_a_blocked_number_is_marked_and_never_the_best(root: Path) -> None:
    for seed in synthetic.SEEDS:
        synthetic.edit(root, f"digits/pgd/{seed}", lambda r: r["best"]["attacks"]["pgd-20"].update(correct=199))
        (root / f"reports/records/digits/pgd/{seed}/examples.npz").unlink(missing_ok=True)  # of other outcomes
    table = main_table(synthetic.study(root), "digits", list(ARMS))
    place = (list(ARMS).index("pgd"), table.header.index("pgd-20"))
    assert place in table.bold
    flag = {"name": "overstated", "attack": "pgd-20", "detail": "as told", "blocks": True}
    synthetic.edit(root, "digits/pgd/1", lambda record: record["flags"].append(flag))
    study = synthetic.study(root)
    table = main_table(study, "digits", list(ARMS))
    assert place not in table.bold
    assert {arm for arm, text in column(table, "pgd-20").items() if "‡" in text} == {"pgd"}
    assert not any("‡" in text for text in column(table, "fgsm").values())
    assert "‡ a blocking flag lies on it" in table.markdown()
    assert r"$\ddagger$" in table.latex()
    found = contrast(study, "digits", ("pgd", "standard"), "pgd-20")
    assert found
    assert found.flags == ("digits/pgd/1: overstated: as told",)
    assert found.text.endswith(" ‡")
    assert not found.apart


def test_a_difference_is_over_the_seeds_that_both_arms_have(root: Path) -> None:
    (root / "reports/records/digits/rat/1/record.json").unlink()
    found = contrast(synthetic.study(root), "digits", ("rat", "rat-clean"), "clean")
    assert found
    assert found.seeds == (0, 2)
    rates = [percent(best(root, "rat", s), "clean") - percent(best(root, "rat-clean", s), "clean") for s in (0, 2)]
    assert found.effect == pytest.approx(math.fsum(rates) / 2)
    for seed in (0, 2):
        (root / f"reports/records/digits/rat-clean/{seed}/record.json").unlink()
    assert contrast(synthetic.study(root), "digits", ("rat", "rat-clean"), "clean") is None


def test_a_caption_claims_no_lead_that_intervals_do_not_support() -> None:
    def value(mean: float, half: float) -> Estimate:
        return Estimate(mean, Interval(mean - half, mean + half), 100, (0, 1), (mean, mean))

    near = {"a": value(60, 2), "b": value(61, 2), "c": value(50, 1)}
    assert leader(near) == "b has the highest mean, 61.0 ± 2.0 %, not apart from a"
    assert leader(near | {"b": value(70, 2)}) == "b is highest with 70.0 ± 2.0 %, apart from all others"
    blocked = replace(value(70, 2), blocked=True)
    assert leader(near | {"b": blocked}) == "b has the highest mean, 70.0 ± 2.0 %, but a blocking flag lies on it"
    assert leader({"a": value(60, 2)}) == "a has 60.0 ± 2.0 %"
    many = {name: value(60, 2) for name in "abcdef"}
    assert leader(many).endswith("not apart from b, c, d and 2 more")
    assert measures.BLOCKED.strip() == "‡"
