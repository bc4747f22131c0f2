"""Each flag by itself: silent at its threshold, speaking beyond it, silent where nothing stands."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from turncoat.evaluation import flags, plan_suite
from turncoat.evaluation.results import BLACK_BOX, ITERATIVE, ONE_STEP, Evaluation, Flag

N = 1000
PLANNED = plan_suite(
    "s",
    {
        "fgsm": {"attack": "fgsm"},
        "pgd-20": {"attack": "pgd", "steps": 20},
        "pgd-100": {"attack": "pgd", "steps": 100},
        "square": {"attack": "square"},
        "auto": {"attack": "autoattack"},
    },
).attacks


def right(count: int) -> np.ndarray:
    """The first `count` of all images."""
    return np.arange(N) < count


def evidence(standing: dict[str, int] | None = None, **given: Any) -> flags.Evidence:
    result = Evaluation(np.zeros(N, np.int64), np.zeros(N, np.int64), np.ones(N, np.float32))
    for name, count in (standing or {"fgsm": 700, "pgd-20": 600, "pgd-100": 595}).items():
        result.correct[name] = right(count)
        result.kinds[name] = {"fgsm": ONE_STEP, "square": BLACK_BOX}.get(name, ITERATIVE)
    plain: dict[str, Any] = {
        "planned": PLANNED, "brightest": 1.0, "deviation": 0.0, "averaged": False, "probabilities": False,
        "undone": False, "zero": right(0), "broken": right(0), "unbounded": right(0), "linear": (40, 40),
    }  # fmt: skip
    return flags.Evidence(result, **plain | given)


def raised(**given: Any) -> dict[str, bool]:
    return {flag.name: flag.blocks for flag in flags.check(evidence(**given))}


def test_nothing_is_said_of_an_honest_evaluation() -> None:
    assert raised() == {}


@pytest.mark.parametrize(
    ("name", "silent", "speaks"),
    [
        ("random-forward", {"deviation": 1e-7}, {"deviation": 1e-3}),
        ("image-range", {"brightest": 0.2}, {"brightest": 1 / 255}),
        ("softmax-output", {}, {"probabilities": True}),
        ("zero-gradient", {"zero": right(10)}, {"zero": right(11)}),
        ("nan-gradient", {}, {"broken": right(1)}),
        ("larger-epsilon", {"unbounded": right(50)}, {"unbounded": right(51)}),
        ("closed-form", {"linear": (34, 40)}, {"linear": (33, 40)}),
        ("closed-form", {"linear": None}, {"linear": (0, 40)}),
        (
            "black-box",
            {"standing": {"pgd-20": 600, "square": 590}},
            {"standing": {"pgd-20": 600, "square": 589}},
        ),
        ("one-step", {"standing": {"pgd-20": 600, "fgsm": 590}}, {"standing": {"pgd-20": 600, "fgsm": 589}}),
        (
            "more-steps",
            {"standing": {"pgd-20": 600, "pgd-100": 570}},
            {"standing": {"pgd-20": 600, "pgd-100": 569}},
        ),
        ("more-steps", {"moved": 2.0}, {"moved": 2.1}),
    ],
)
def test_each_speaks_beyond_its_threshold(name: str, silent: dict[str, Any], speaks: dict[str, Any]) -> None:
    assert name not in raised(**silent)
    assert raised(**speaks)[name] is True


def test_where_nothing_stands_there_is_nothing_to_doubt() -> None:
    assert raised(standing={"pgd-20": 10}, zero=right(10), broken=right(10), unbounded=right(10)) == {}
    assert raised(standing={"pgd-20": 10}, deviation=1.0) == {"random-forward": False}


@pytest.mark.parametrize("images", [1, 2, 3])
def test_one_or_two_images_of_a_small_set_are_no_evidence(images: int) -> None:
    """Two of 64 are 3 %, and may be a network that is sure of itself there."""
    small = Evaluation(*(np.zeros(64, kind) for kind in (np.int64, np.int64, np.float32)))
    for name, count in {"pgd-20": 40, "square": 40 - images, "fgsm": 40}.items():
        small.correct[name] = np.arange(64) < count
        small.kinds[name] = {"fgsm": ONE_STEP, "square": BLACK_BOX}.get(name, ITERATIVE)
    given = replace(evidence(), result=small, zero=np.arange(64) < images, broken=small.clean & False)
    assert {flag.name for flag in flags.check(given)} == ({"zero-gradient", "black-box"} if images == 3 else set())


def test_what_was_met_does_not_block() -> None:
    assert raised(deviation=1.0, averaged=True) == {"random-forward": False}
    assert raised(probabilities=True, undone=True) == {"softmax-output": False}


def test_on_a_random_network_a_new_try_may_turn_a_few_more() -> None:
    standing = {"pgd-20": 600, "square": 560}
    assert "black-box" not in raised(standing=standing, deviation=1.0, averaged=True)
    assert "black-box" in raised(standing={"pgd-20": 600, "square": 540}, deviation=1.0, averaged=True)


def test_steps_are_compared_between_attacks_that_differ_in_nothing_else() -> None:
    eot = {"attack": "pgd", "steps": 100, "eot": 20}
    suite = {"full": eot, "past": eot | {"bpda": True}, "fewer": eot | {"steps": 20}}
    given = {"planned": plan_suite("s", suite).attacks, "deviation": 1.0, "averaged": True}
    assert "more-steps" not in raised(standing={"full": 500, "past": 600, "fewer": 520}, **given)
    assert "more-steps" in raised(standing={"full": 500, "past": 600, "fewer": 540}, **given)


def test_a_flag_blocks_if_the_second_look_does_not_settle_it() -> None:
    before = [Flag("a", "first", True), Flag("b", "first", True)]
    after = [Flag("b", "second", True), Flag("c", "new", True)]
    kept = flags.settled(before, after)
    assert [(flag.name, flag.blocks, flag.detail) for flag in kept] == [
        ("a", False, "first; settled"),
        ("b", True, "second"),
        ("c", True, "new"),
    ]


def test_pgd_far_above_autoattack_is_not_believed() -> None:
    standing = {"fgsm": 800, "pgd-20": 551, "pgd-100": 550, "auto": 500}
    found = flags.overstated(evidence(standing).result, PLANNED, looked=False)
    assert [(flag.name, flag.attack, flag.blocks) for flag in found] == [("autoattack-gap", "pgd-20", True)]
    without = {"pgd-20": 600, "pgd-100": 500}
    assert flags.overstated(evidence(without).result, PLANNED, looked=False) == []
    found = flags.overstated(evidence(without).result, PLANNED, looked=True)
    assert [(flag.name, flag.attack) for flag in found] == [("overstated", "pgd-20")]


@pytest.mark.fault(10, "softmax outputs instead of logits", "told apart and flagged")
def test_probabilities_are_told_from_logits() -> None:
    logits = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    assert flags.is_probabilities(logits.softmax(1))
    assert flags.is_probabilities(torch.eye(10))
    assert not flags.is_probabilities(logits)
    assert not flags.is_probabilities(logits.log_softmax(1))
    assert not flags.is_probabilities(logits.sigmoid())
