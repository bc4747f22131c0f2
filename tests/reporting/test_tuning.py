"""Tuned arms in the report: the verdict that is on them, what it says beside, the table of what was tried."""

from pathlib import Path
from typing import Any

import pytest

from tests.reporting import synthetic
from turncoat.files import read_json, write_json
from turncoat.papers import chapters
from turncoat.reporting import report
from turncoat.reporting.study import Study, load
from turncoat.reporting.tables import verdict_table
from turncoat.reporting.tuning import table
from turncoat.reporting.verdicts import Verdict, judge
from turncoat.settings import Settings, validate

GRID = {"beta": [1.0, 5.0]}
RATES = {"mart-tuned": (0.95, 0.74), "mart-no-weight-tuned": (0.95, 0.80)}


def tuning(chosen: float, metric: str = "robust") -> dict[str, Any]:
    values = [0.7025, 0.71] if chosen == 5.0 else [0.73, 0.71]
    trials = [{"values": {"beta": beta}, "validation": [value]} for beta, value in zip((1.0, 5.0), values, strict=True)]
    about = {"grid": GRID, "own": {"beta": 5.0}, "metric": metric, "seeds": [100], "trials": trials}
    return about | {"chosen": {"beta": chosen}, "forward": 240_000, "backward": 220_000}


CHOSEN = {"mart-tuned": tuning(5.0), "mart-no-weight-tuned": tuning(1.0)}


def params(**changes: Any) -> dict[str, Any]:
    made = synthetic.params(arms=["mart", "mart-no-weight", "pgd"])
    made["study"]["tuning"] = {"arms": list(RATES), "trials": [0, 1], "seeds": [100]} | changes
    return made


def resolve(dataset: str, arm: str, section: str = "arms") -> dict[str, Any]:
    return synthetic.resolve(dataset, arm.removesuffix("-tuned"), section)


def made(root: Path, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, dict[str, Any]], **changes: Any) -> Study:
    """A study in which the unweighted arm is behind as given, and ahead at its best setting."""
    for arm, rates in RATES.items():
        monkeypatch.setitem(synthetic.ARMS, arm, rates)
        monkeypatch.setitem(synthetic.GRIDS, arm, {"tune": GRID})
    monkeypatch.setitem(synthetic.ARMS, "mart-no-weight", (0.95, 0.60))
    synthetic.write(root)
    for arm, told in chosen.items():
        for seed in synthetic.SEEDS:
            settings = {
                "arm": resolve("digits", arm) | told["chosen"],
                "dataset": {"threat": {"norm": "linf", "epsilon": 0.15}},
                "suite": {"name": "quick", **synthetic.settings().suites["quick"].model_dump()},
            }
            synthetic.write_cell(root, "digits", arm, seed, tuning=told, settings=settings, method="mart")
    return load(validate(Settings, params(**changes), ""), resolve, root)


def verdict(study: Study, claim: str) -> Verdict:
    paper = next(chapter.paper for chapter in chapters.load() if chapter.paper.name == "mart")
    return judge(study, paper, next(found for found in paper.claims if found.id == claim), "digits")


def test_a_claim_is_judged_on_the_tuned_arms_and_tells_the_given_ones_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made(tmp_path, monkeypatch, CHOSEN)
    assert not study.missing
    found = verdict(study, "mart-weight")
    assert {cell.arm for cell in found.cells} == set(RATES)
    assert found.effect is not None
    assert found.effect < 0
    assert found.word == "not reproduced"
    assert found.tuned
    assert found.tuning.startswith(
        "tuned: mart-tuned (beta 5), mart-no-weight-tuned (beta 1), 2 trials each on the validation split; "
        "the arms as given: direction holds, +1"
    )
    papers = [chapter.paper for chapter in chapters.load()]
    told = verdict_table(papers, [found], "digits")
    assert told.rows[0][1] == "not reproduced, tuned"
    assert "Tuned: of both arms" in told.caption


@pytest.mark.parametrize("claim", ["mart-over-pgd", "mart-boost", "mart-black-box-pgd"])
def test_a_claim_without_two_tuned_arms_is_on_the_given_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claim: str
) -> None:
    found = verdict(made(tmp_path, monkeypatch, CHOSEN), claim)
    assert not found.tuned
    assert not any(cell.arm.endswith("-tuned") for cell in found.cells)
    said = {"mart-over-pgd": "not tuned: both arms as given, for mart alone has trials"}
    assert found.tuning == said.get(claim, "")  # boost is not run; one arm with itself is no comparison of two


def test_arms_tuned_by_other_measures_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = made(tmp_path, monkeypatch, CHOSEN | {"mart-tuned": tuning(5.0, "clean")})
    found = verdict(study, "mart-weight")
    assert found.word == "direction holds"
    assert found.tuning == "not tuned: both arms as given, for their trials went by different measures (clean, robust)"


def test_a_tuned_arm_that_is_missing_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = made(tmp_path, monkeypatch, CHOSEN, trials=[0, 1, 2])
    assert {cell.arm: why for cell, why in study.missing.items()} == dict.fromkeys(
        RATES, "its record is from other settings: study.tuning has changed"
    )
    found = verdict(study, "mart-weight")
    assert found.word == "not run"
    assert "dvc repro -f -s finetune-tuned@digits-mart-tuned-0 evaluate-tuned@digits-mart-tuned-0" in {
        cell.command for cell in study.missing
    }


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (tuning(1.0) | {"grid": {"beta": [1.0, 2.0, 5.0]}}, "arms.mart-tuned.tune has changed"),
        (tuning(1.0) | {"seeds": [101]}, "study.tuning has changed"),
        (None, "arms.mart-tuned.tune has changed"),
    ],
)
def test_a_record_of_another_tuning_is_of_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any] | None, said: str
) -> None:
    made(tmp_path, monkeypatch, CHOSEN)
    for seed in synthetic.SEEDS:
        path = tmp_path / f"reports/records/digits/mart-tuned/{seed}/record.json"
        write_json(path, read_json(path) | {"tuning": told})
    study = load(validate(Settings, params(), ""), resolve, tmp_path)
    assert set(study.missing.values()) == {f"its record is from other settings: {said}"}


def test_a_record_at_another_point_than_its_trials_chose_is_of_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, monkeypatch, CHOSEN)
    path = tmp_path / "reports/records/digits/mart-tuned/0/record.json"
    record = read_json(path)
    record["settings"]["arm"]["beta"] = 1.0
    write_json(path, record)
    study = load(validate(Settings, params(), ""), resolve, tmp_path)
    assert list(study.missing.values()) == ["its record is from other settings: arms.mart-tuned.beta has changed"]


def test_the_table_shows_every_trial_the_choice_and_the_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = made(tmp_path, monkeypatch, CHOSEN)
    (tmp_path / "reports/times/digits/mart-tuned").mkdir(parents=True)
    (tmp_path / "reports/times/digits/mart-tuned/0.json").write_text('{"seconds": {"tuning": 61.4}}')
    found = table(study, "digits")
    assert found
    assert found.rows == [
        ["mart-tuned", "beta 1: 70.2; beta 5: 71.0", "beta 5", "beta 5", "robust", "2 × 1", "240", "220", "61"],
        [
            "mart-no-weight-tuned",
            "beta 1: 73.0; beta 5: 71.0",
            "beta 1",
            "beta 5",
            "robust",
            "2 × 1",
            "240",
            "220",
            "–",
        ],
    ]
    report.build(study.settings, resolve, chapters.load(), tmp_path)
    page = (tmp_path / "reports/report.html").read_text()
    assert "beta 1: 73.0; beta 5: 71.0" in page
    assert "Tuned: mart-tuned (beta 5), mart-no-weight-tuned (beta 1), 2 trials each" in page
    assert (tmp_path / "reports/tables/tuning-digits.csv").exists()


def test_a_study_without_tuned_arms_has_no_such_table(built: Path) -> None:
    assert table(synthetic.study(built, arms=["standard", "pgd"]), "digits") is None
    assert "tuned arms" not in (built / "reports/report.html").read_text()
