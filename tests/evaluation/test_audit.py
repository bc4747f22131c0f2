"""The estimate of how far a worst case overstates, against AutoAttack on some of what stands."""

from dataclasses import dataclass
from math import sqrt
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.evaluation import broken
from tests.evaluation.conftest import THREAT
from turncoat.evaluation import evaluate, plan_suite
from turncoat.evaluation.audit import audit, estimate, sample
from turncoat.evaluation.results import Bools, Evaluation, Outcome

PGD = {"fgsm": {"attack": "fgsm"}, "pgd-20": {"attack": "pgd", "steps": 20}}


def test_the_interval_is_wilsons_scaled_by_the_share_that_stands() -> None:
    found = estimate(7, 100, 600, 1000)
    z, share = 1.959964, 0.07
    middle = (share + z**2 / 200) / (1 + z**2 / 100)
    half = z * sqrt(share * (1 - share) / 100 + z**2 / 40000) / (1 + z**2 / 100)
    assert (found["n"], found["fallen"]) == (100, 7)
    assert found["points"] == pytest.approx(4.2)
    assert found["low"] == pytest.approx(60 * (middle - half), abs=1e-3)
    assert found["high"] == pytest.approx(60 * (middle + half), abs=1e-3)


def test_where_all_that_stand_were_looked_at_nothing_is_left_to_chance() -> None:
    assert estimate(3, 50, 50, 1000) == {"n": 50, "fallen": 3, "points": 0.3, "low": 0.3, "high": 0.3}
    assert estimate(0, 0, 0, 1000) == {"n": 0, "fallen": 0, "points": 0.0, "low": 0.0, "high": 0.0}


def test_the_sample_is_counted_and_of_what_stands() -> None:
    standing = np.arange(1000) % 3 > 0
    drawn = sample(standing, 100, seed=0)
    assert drawn.sum() == 100
    assert not (drawn & ~standing).any()
    assert (sample(standing, 100, seed=0) == drawn).all()
    assert (sample(standing, 100, seed=1) != drawn).any()
    assert (sample(standing, 700, seed=0) == standing).all()


@dataclass
class Stub:
    """A runner whose AutoAttack brings down the first `falls` images of the sample."""

    falls: int
    random: bool = False
    seed: int = 0

    def attack(self, name: str, planned: Any, threat: Any, among: Bools, label: str) -> tuple[Outcome, dict[str, Any]]:
        return Outcome(among & (np.cumsum(among) > self.falls)), {}


def found(runner: Stub, suite: Any, images: int = 1000) -> tuple[Evaluation, list[Any]]:
    """Half of the images stand."""
    result = Evaluation(np.zeros(images, np.int64), np.zeros(images, np.int64), np.ones(images, np.float32))
    result.correct = {name: np.arange(images) < images // 2 for name in suite.attacks}
    return result, audit(runner, suite, THREAT, result)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("falls", "flagged", "blocks"),
    [(0, False, False), (2, False, False), (3, True, False), (4, True, False), (5, True, True), (60, True, True)],
)
def test_a_point_is_flagged_and_blocks_beyond_chance(falls: int, flagged: bool, blocks: bool) -> None:
    result, flags = found(Stub(falls), plan_suite("s", PGD, audit=100))
    assert result.overstatement is not None
    assert result.overstatement["points"] == pytest.approx(falls / 2)
    assert [(flag.name, flag.attack, flag.blocks) for flag in flags] == [("audit", None, blocks)] * flagged
    assert result.worst.mean() == 0.5  # the sample leaves the worst case alone


def test_one_or_two_images_of_a_small_set_raise_no_flag() -> None:
    assert found(Stub(2), plan_suite("s", PGD, audit=100), 60)[1] == []
    assert found(Stub(3), plan_suite("s", PGD, audit=100), 60)[1] != []


@pytest.mark.parametrize(
    ("runner", "attacks", "images"),
    [
        (Stub(50), PGD, 0),
        (Stub(50, random=True), PGD, 100),
        (Stub(50), PGD | {"auto": {"attack": "autoattack"}}, 100),
        (Stub(50), PGD | {"auto": {"attack": "autoattack", "version": "plus"}}, 100),
    ],
)
def test_nothing_is_audited_by_what_has_met_it(runner: Stub, attacks: dict[str, Any], images: int) -> None:
    result, flags = found(runner, plan_suite("s", attacks, audit=images))
    assert flags == []
    assert result.overstatement is None


@pytest.mark.parametrize("less", [{"steps": 10}, {"queries": 100}, {"version": "rand"}, {"deterministic": True}])
def test_only_the_whole_of_autoattack_spares_the_audit(less: dict[str, Any]) -> None:
    """`deterministic` says whom an entry meets, not how: with it AutoAttack is whole."""
    result, _ = found(Stub(0), plan_suite("s", PGD | {"auto": {"attack": "autoattack", **less}}, audit=100))
    assert (result.overstatement is None) is ("deterministic" in less)
    apart = {"auto": {"attack": "autoattack", "threat": {"norm": "l2", "epsilon": 0.5}}}
    suite = plan_suite("s", PGD | apart, audit=100)
    result = Evaluation(*(np.zeros(10, kind) for kind in (np.int64, np.int64, np.float32)))
    result.correct, result.threats = dict.fromkeys(suite.attacks, result.clean), {"auto": {"norm": "l2"}}
    audit(Stub(0), suite, THREAT, result)  # type: ignore[arg-type]
    assert result.overstatement is not None


class Shelves(broken.Defended):
    """Logits on a grid: the margin is flat but for its edges, and has no gradient."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return (logits / 3).round() * 3


@pytest.mark.parametrize("defence", [Shelves, broken.Rounded])
def test_what_hides_from_the_suite_and_the_second_look_is_told(
    defence: type[nn.Module], network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    result = evaluate(defence(network), images, labels, THREAT, plan_suite("s", PGD, audit=40))
    assert result.overstatement is not None
    assert result.overstatement["fallen"] >= 3
    raised = {flag.name: flag for flag in result.flags}
    assert raised["audit"].attack is None
    assert f"{result.overstatement['fallen']} of {result.overstatement['n']} standing" in raised["audit"].detail


def test_an_honest_network_is_cleared_and_the_audit_costs_what_the_record_says(
    network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    strong = PGD | {"apgd-t": {"attack": "apgd-t", "steps": 20, "among": "standing"}}
    plain, audited = (evaluate(network, images, labels, THREAT, plan_suite("s", strong, audit=n)) for n in (0, 100))
    assert plain.overstatement is None
    assert audited.overstatement is not None
    assert audited.overstatement["points"] <= 0.5
    assert audited.overstatement["n"] == audited.worst.sum() < 100  # all that stand
    assert audited.flags == plain.flags == []
    assert all((plain.correct[name] == audited.correct[name]).all() for name in strong)
    assert audited.overhead["forward"] > plain.overhead["forward"]


def test_the_same_seed_gives_the_same_estimate(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Whatever stands in for AutoAttack's own draws: they are counted like all others."""
    weak = {"pgd": {"attack": "pgd", "steps": 2, "relative_step": 0.2}}
    few, state = SimpleNamespace(images=images[:60], labels=labels[:60]), torch.get_rng_state()
    once, again = (
        evaluate(network, few.images, few.labels, THREAT, plan_suite("s", weak, audit=5), seed=3) for _ in range(2)
    )
    assert once.overstatement == again.overstatement
    assert torch.equal(torch.get_rng_state(), state)
