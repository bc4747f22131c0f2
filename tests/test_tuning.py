"""Grids: which points are tried, which one is chosen, and what is refused before anything trains."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.defaults import DEFAULTS
from turncoat import settings
from turncoat.errors import TurncoatError
from turncoat.papers.arms import check_arms, trials
from turncoat.shelves import merged
from turncoat.tuning import choose, points, put

ROOT = Path(__file__).parents[1]
BETA = {"beta": [0.25, 0.5, 1.0, 2.0, 5.0]}
THREE = {"a": [0.5, 1.0, 2.0], "b": [0.5, 1.0, 2.0], "gamma": [0.5, 1.0, 2.0]}
OWN = dict.fromkeys(THREE, 1.0)


def test_a_grid_of_as_many_points_is_tried_in_full_and_in_order():
    assert points(BETA, {"beta": 5}, 5, "") == [{"beta": value} for value in BETA["beta"]]
    assert points({"a": [1, 2], "b": [3, 4]}, {"a": 1, "b": 3}, 4, "")[1] == {"a": 1, "b": 4}


@given(st.integers(2, 26))
def test_a_larger_grid_gives_as_many_different_points_the_given_one_first(number):
    found = points(THREE, OWN, number, "")
    assert found[0] == OWN
    assert len(found) == len({tuple(point.values()) for point in found}) == number
    assert all(point[name] in THREE[name] for point in found for name in THREE)
    assert found[: number - 1] == points(THREE, OWN, number - 1, ""), "one trial more leaves the others as they are"


def test_a_value_more_keeps_the_order_of_the_points_that_were_there():
    before = points(THREE, OWN, 26, "")
    after = points(THREE | {"a": [0.5, 1.0, 2.0, 4.0]}, OWN, 35, "")
    assert [point for point in after if point in before] == [point for point in before if point in after]


@pytest.mark.parametrize(
    ("grid", "own", "said"),
    [
        ({"beta": [1, 2]}, {"beta": 1}, "has 2 points, where study.tuning has 5 trials"),
        (BETA, {"beta": 6.0}, "lacks 6.0, the given value"),
        ({"beta": [1, 2, 1]}, {"beta": 1}, "a list of different values"),
        ({"beta": 3}, {"beta": 3}, "a list of different values"),
        ({}, {}, "settings are wanted"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(grid, own, said):
    with pytest.raises(TurncoatError, match=said):
        points(grid, own, 5, "arms.x-tuned.tune")


def test_the_highest_is_chosen_and_a_failed_training_never():
    tried = [({"beta": value}, score) for value, score in zip(BETA["beta"], [0.6, 0.7, None, 0.71, 0.6], strict=True)]
    assert choose(tried, BETA, {"beta": 5.0}) == {"beta": 2.0}
    with pytest.raises(TurncoatError, match="no trial came to an end"):
        choose([(point, None) for point, _ in tried], BETA, {"beta": 5.0})


@pytest.mark.parametrize(("own", "chosen"), [(5.0, 2.0), (0.25, 0.5), (2.0, 2.0), (1.0, 0.5)])
def test_of_equals_the_nearest_to_the_given_value_then_the_first(own, chosen):
    tried = [({"beta": value}, score) for value, score in zip(BETA["beta"], [0.1, 0.7, 0.1, 0.7, 0.1], strict=True)]
    assert choose(tried, BETA, {"beta": own}) == {"beta": chosen}


def test_a_nested_setting_is_put_without_touching_the_arm():
    arm = {"method": "pgd", "attack": {"steps": 5}, "tune": {"attack.radius": [1, 2]}, "tune_by": "clean"}
    made = put(arm, {"attack.radius": 2, "training.lr": 0.1})
    assert made == {"method": "pgd", "attack": {"steps": 5, "radius": 2}, "training": {"lr": 0.1}}
    assert arm["attack"] == {"steps": 5}


# ------------------------------------------------------------------------------------------------ in params.yaml


@pytest.fixture
def params():
    return merged(DEFAULTS).values


def loaded(tmp_path, params):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    found = settings.load(tmp_path / "params.yaml")
    check_arms(found)
    return found


def test_a_tuned_arm_is_its_namesake_in_all_else(tmp_path, params):
    params["arms"]["mart"]["training"] = {"epochs": 3}
    params["study"]["tuning"]["arms"] = ["mart-tuned"]
    found = loaded(tmp_path, params)
    assert found.arms["mart-tuned"] == params["arms"]["mart"] | params["arms"]["mart-tuned"]
    assert found.study.arms[-1] == "mart-tuned"
    assert trials(found, "digits", "mart-tuned") == [{"beta": value} for value in BETA["beta"]]


def test_every_tuned_arm_of_the_papers_has_enough_points_and_the_given_one_on_every_data_set(tmp_path, params):
    tuned = [arm for arm, raw in params["arms"].items() if "tune" in raw]
    assert {"mart-no-weight-tuned", "trades-tuned", "mart-awp-tuned", "advamd-tuned", "rat-tuned"} <= set(tuned)
    params["study"]["tuning"]["arms"] = tuned
    params["study"]["pretrained"] = list(params["pretrained"])
    params["study"]["datasets"] = ["digits", "mnist", "fashion_mnist", "cifar10"]
    found = loaded(tmp_path, params)
    assert {len(trials(found, name, arm)) for arm in tuned for name in found.study.datasets} == {5}


def tune(name, **entry):
    def change(params):
        params["arms"][name] = entry
        params["study"]["tuning"]["arms"] = [name]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (tune("mart-tuned", tune={"beta": [1.0, 5.0]}), "arms.mart-tuned.tune: has 2 points, where study.tuning has 5"),
        (tune("mart-tuned", tune={"beta": [1, 2, 3, 4, 6]}), r"arms.mart-tuned.tune.beta: lacks 5.0, the given value"),
        (tune("mart-tuned", tune={"betta": [1, 2]}), "arms.mart-tuned.tune.betta: no setting of this arm"),
        (tune("mart-tuned", tune={"beta": [5.0, -1.0]}), "arms.mart-tuned.beta: .*greater than or equal to 0"),
        (tune("mart-tuned", tune=[1, 2]), "arms.mart-tuned.tune: settings with lists of values are wanted"),
        (tune("mart-best", tune=BETA), "arms.mart-best: an arm with a grid under `tune` is named ...-tuned"),
        (tune("mart-tuned"), "arms.mart-tuned: an arm with a grid under `tune` is named ...-tuned, and no other is"),
        (tune("mert-tuned", tune=BETA), "study.arms: mert-tuned is not defined; did you mean mart-tuned"),
        (tune("reverse-tuned", tune={"bound": [0.1, 0.2]}), "reverse-tuned.tune_by: clean or robust is wanted"),
        (lambda p: p["study"]["arms"].append("mart-tuned"), "study.arms: arms.mart-tuned has grid"),
        (lambda p: p["study"]["tuning"].update(arms=["mart"]), "study: arms: mart stands under tuning.arms already"),
        (
            lambda p: p["study"]["tuning"].update(arms=["advamd-iterates"]),
            "study.tuning.arms: arms.advamd-iterates has no grid",
        ),
        (lambda p: p["study"]["tuning"].update(arms=["mort-tuned"]), "mort-tuned is not defined"),
        (lambda p: p["study"]["tuning"].update(seeds=[0]), "tuning.seeds: 0 is a seed of the study too"),
        (lambda p: p["study"]["tuning"].update(trials=[1, 2]), "trials: 0, 1 and so on are wanted"),
    ],
)
def test_what_cannot_be_tuned_is_told_in_one_line(tmp_path, params, change, said):
    change(params)
    with pytest.raises(TurncoatError, match=said) as refused:
        loaded(tmp_path, params)
    assert "\n" not in str(refused.value)


def test_the_default_study_tunes_nothing(params):
    assert params["study"]["tuning"]["arms"] == []
