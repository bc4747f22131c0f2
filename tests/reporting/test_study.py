"""Which cells a report holds: exactly those that params.yaml names, each from the settings that it names now."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reporting import synthetic
from turncoat.errors import TurncoatError
from turncoat.reporting.cell import Cell
from turncoat.reporting.measures import accuracy, curve, summary
from turncoat.reporting.statistics import wilson
from turncoat.reporting.study import expected, load
from turncoat.settings import Settings, validate


@pytest.fixture
def root(tmp_path: Path) -> Path:
    synthetic.write(tmp_path, seeds=(0, 1), n=60)
    return tmp_path


def test_expected_cells_come_from_params_alone(root: Path) -> None:
    """Records of arms and seeds that params.yaml does not name lie there, and are not in the report."""
    study = synthetic.study(root, arms=["pgd", "mart"], seeds=(0,))
    assert list(study.records) == expected(study.settings) == [Cell("digits", "pgd", 0), Cell("digits", "mart", 0)]
    assert set(summary(study)["digits"]) == {"pgd", "mart"}
    assert summary(study)["digits"]["mart"]["seeds"] == 1


@pytest.mark.fault(26, "a record that is not there", "the cell is not run; nothing stands in for it")
def test_a_missing_cell_is_not_filled_in(root: Path) -> None:
    study = synthetic.study(root, arms=["mart"], seeds=(0, 1, 2))
    assert study.missing == {Cell("digits", "mart", 2): "no record"}
    assert summary(study)["digits"]["mart"]["seeds"] == 2


@pytest.mark.fault(18, "seed 0 in the report", "counts as any other")
def test_seed_0_counts(root: Path) -> None:
    value = accuracy(synthetic.study(root, seeds=(0, 1)), "digits", "mart", "clean")
    assert value is not None
    assert value.seeds == (0, 1)


def change_lr(params: dict[str, Any]) -> None:
    params["training"] = params["training"] | {"lr": 0.2}


def drop_key(params: dict[str, Any]) -> None:
    del params["start"]


@pytest.mark.parametrize(("change", "where"), [(change_lr, "arms.mart.training.lr"), (drop_key, "arms.mart.start")])
@pytest.mark.fault(26, "a record from other settings of its arm", "not run, says which setting")
def test_a_record_from_other_arm_settings_is_not_run(root: Path, change: Any, where: str) -> None:
    def resolve(dataset: str, arm: str) -> dict[str, Any]:
        resolved = synthetic.resolve(dataset, arm)
        if arm == "mart":
            change(resolved)
        return resolved

    study = load(synthetic.settings(seeds=(0,)), resolve, root)
    assert study.missing == {Cell("digits", "mart", 0): f"its record is from other settings: {where} has changed"}


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("settings", "suite", "attacks", "pgd-20", "steps"), 10, "suites.quick.attacks.pgd-20.steps"),
        (("settings", "suite", "name"), "full", "suites.quick.name"),
        (("settings", "dataset", "threat", "epsilon"), 0.1, "datasets.digits.threat.epsilon"),
    ],
)
def test_a_record_from_another_suite_or_threat_is_not_run(
    root: Path, path: tuple[str, ...], value: Any, where: str
) -> None:
    def change(record: dict[str, Any]) -> None:
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    synthetic.edit(root, "digits/mart/0", change)
    study = synthetic.study(root, seeds=(0,))
    assert list(study.missing.values()) == [f"its record is from other settings: {where} has changed"]


GIVEN = {"weights": "w.pth", "sha256": "a" * 64, "normalisation": {"mean": [0.5], "std": [0.25]}}


@pytest.mark.parametrize(
    ("asked", "changed"),
    [
        ({"weights": "networks/w.pth"}, None),
        ({"weights": "w.pth", "sha256": "a" * 64, "normalisation": "data"}, None),
        ({"weights": "w.pth", "normalisation": GIVEN["normalisation"]}, None),
        ({"weights": "v.pth"}, "weights"),
        ({"weights": "w.pth", "sha256": "b" * 64}, "sha256"),
        ({"weights": "w.pth", "normalisation": {"mean": [0.1], "std": [0.25]}}, "normalisation.mean"),
        (None, ""),
    ],
)
def test_given_weights_are_compared_by_what_the_settings_say(root: Path, asked: dict | None, changed: str) -> None:
    synthetic.edit(root, "digits/mart/0", lambda record: record["settings"]["dataset"].update(baseline=GIVEN))
    values = synthetic.params(seeds=(0,), arms=["mart"])
    values["datasets"]["digits"]["baseline"] = asked
    missing = load(validate(Settings, values, ""), synthetic.resolve, root).missing
    where = "datasets.digits.baseline" + f".{changed}" * bool(changed)
    why = f"its record is from other settings: {where} has changed"
    assert list(missing.values()) == ([] if changed is None else [why])


def test_a_record_in_another_cells_folder_is_not_run(root: Path) -> None:
    synthetic.edit(root, "digits/mart/0", lambda record: record["cell"].update(arm="pgd"))
    study = synthetic.study(root, seeds=(0,))
    assert study.missing == {Cell("digits", "mart", 0): "its record is of digits/pgd/0"}


def test_an_impossible_count_stops_with_file_field_and_remedy(root: Path) -> None:
    synthetic.edit(root, "digits/mart/0", lambda record: record["best"]["clean"].update(correct=61))
    message = r"digits/mart/0/record\.json: best\.clean: .*exceeds n.*dvc repro -f -s finetune@digits-mart-0"
    with pytest.raises(TurncoatError, match=message):
        synthetic.study(root)


def test_a_record_that_is_no_json_stops(root: Path) -> None:
    (root / "reports/records/digits/mart/0/record.json").write_text("{")
    with pytest.raises(TurncoatError, match="not valid JSON"):
        synthetic.study(root)


def test_outcomes_are_those_of_the_record(root: Path) -> None:
    study = synthetic.study(root, seeds=(0, 1))
    cells = [cell for cell, _ in study.of("digits", "mart")]
    for metric in ("clean", "pgd-20", "worst"):
        outcomes = study.outcomes(cells, metric)
        assert outcomes is not None
        assert outcomes[0].sum(axis=1).tolist() == [study.records[cell].best.count(metric).correct for cell in cells]  # type: ignore[union-attr]
    assert study.outcomes(cells, "unheard-of") is None


def test_examples_that_the_record_does_not_name_stop(root: Path) -> None:
    np.savez(root / "reports/records/digits/mart/0/examples.npz", index=np.arange(60))
    study = synthetic.study(root, seeds=(0,))
    with pytest.raises(TurncoatError, match="not the file its record names"):
        study.outcomes([Cell("digits", "mart", 0)], "clean")


def test_an_estimate_is_its_records_arithmetic(root: Path) -> None:
    study = synthetic.study(root, seeds=(0, 1))
    value = accuracy(study, "digits", "mart", "pgd-20")
    records = [json.loads((root / f"reports/records/digits/mart/{seed}/record.json").read_text()) for seed in (0, 1)]
    rates = [100 * record["best"]["attacks"]["pgd-20"]["correct"] / 60 for record in records]
    assert value is not None
    assert value.mean == pytest.approx(np.mean(rates))
    kept, _ = study.outcomes([Cell("digits", "mart", seed) for seed in (0, 1)], "pgd-20") or pytest.fail("no outcomes")
    assert value.interval.half == pytest.approx(100 * synthetic.half_by_hand([r / 100 for r in rates], 60, kept))
    assert summary(study)["digits"]["mart"]["pgd-20"] == round(float(np.mean(rates)), 2)


def test_the_security_curve_starts_at_the_clean_accuracy(root: Path) -> None:
    study = synthetic.study(root, seeds=(0, 1))
    points = curve(study, "digits", "mart")
    assert [epsilon for epsilon, _ in points] == pytest.approx([0, 0.075, 0.15, 0.225])
    assert points[0][1] == accuracy(study, "digits", "mart", "clean")


def test_trials_on_the_same_images_count_each_image_once(root: Path) -> None:
    """Six shifts of 60 images are 360 trials, and no more evidence than 60 images."""
    study = synthetic.study(root, seeds=(0,))
    value = accuracy(study, "digits", "mart", "shifts")
    assert value is not None
    assert value.n == 60
    correct = [row.correct for row in study.records[Cell("digits", "mart", 0)].best.shifts]
    assert value.mean == pytest.approx(100 * sum(correct) / 360)
    assert value.interval.half == pytest.approx(100 * wilson(round(sum(correct) / 6), 60).half)


@pytest.mark.parametrize("metric", ["shifts", "shifts-seen", "shifts-unseen", "universal"])
def test_pooled_trials_image_by_image_are_the_records_counts(root: Path, metric: str) -> None:
    study = synthetic.study(root, seeds=(0,))
    cell = Cell("digits", "mart", 0)
    outcomes, _ = study.outcomes([cell], metric, ["blur"]) or pytest.fail("no outcomes")
    count = study.records[cell].best.count(metric, ["blur"])
    assert count is not None
    assert 0 < outcomes.mean() < 1
    # of universal perturbations an image meets as many as there are other classes; of shifts, all
    assert outcomes.mean() == pytest.approx(count.accuracy, abs=1e-9)


def test_attacks_of_a_second_look_stay_out_of_the_main_table(root: Path) -> None:
    extra = {"second-look-steps": {"correct": 30, "n": 60, "met": 40}}
    synthetic.edit(root, "digits/mart/0", lambda record: record["best"]["attacks"].update(extra))
    study = synthetic.study(root, seeds=(0,))
    assert study.attacks("digits") == synthetic.ATTACKS
    assert study.met("digits") == [*synthetic.ATTACKS, "second-look-steps"]
    assert "second-look-steps" not in summary(study)["digits"]["mart"]
