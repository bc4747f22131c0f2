"""Attacks on what stands, and attacks on random networks that double steps and draws until that takes nothing more."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.evaluation.conftest import THREAT
from turncoat.attacks import Threat, fgsm
from turncoat.evaluation import Evaluation, evaluate, ladder
from turncoat.evaluation.journal import Journal
from turncoat.evaluation.ladder import LEVEL, unlevelled
from turncoat.evaluation.recording import measurements
from turncoat.evaluation.suite import plan_attack
from turncoat.reporting.record import Checkpoint

RUNG = {"attack": "momentum", "steps": 2, "eot": 2, "average": "probabilities"}
CLASSES = [str(digit) for digit in range(10)]


class Noisy(nn.Module):
    """Pixels noised anew at each pass, by draws that belong to the image where verdicts are given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, *, seeds: Sequence[int] | None = None) -> Tensor:
        if seeds is None:
            noise = torch.randn_like(images)
        else:
            sources = [torch.Generator().manual_seed(seed) for seed in seeds]
            noise = torch.stack([torch.randn(images.shape[1:], generator=source) for source in sources])
        logits: Tensor = self.network(images + 0.3 * noise)
        return logits


@pytest.fixture(scope="module")
def noisy(network: nn.Module) -> nn.Module:
    return Noisy(network)


def climbed(model: nn.Module, images: Tensor, labels: Tensor, doublings: int, **given: Any) -> Evaluation:
    suite = {"ladder": RUNG | {"doublings": doublings}}
    return evaluate(model, images, labels, Threat("linf", 0.06), suite, checks=False, **given)


def test_a_ladder_ends_when_a_doubling_takes_next_to_nothing(noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    result = climbed(noisy, images, labels, 6)
    rungs = result.rungs["ladder"]
    assert [(rung["steps"], rung["draws"]) for rung in rungs] == [
        (2, 2),
        (4, 2),
        (4, 4),
        (8, 4),
        (8, 8),
        (16, 8),
        (16, 16),
    ][: len(rungs)]
    assert 2 <= len(rungs) < 7
    assert "took" not in rungs[0]
    assert all(rung["took"] >= LEVEL for rung in rungs[1:-1])
    assert rungs[-1]["took"] < LEVEL
    assert [rung["probability"] for rung in rungs] == sorted((rung["probability"] for rung in rungs), reverse=True)
    assert [rung["met"] for rung in rungs] == sorted((rung["met"] for rung in rungs), reverse=True)
    assert rungs[-1]["correct"] == result.correct["ladder"].sum()
    assert 0 < result.worst.sum() <= result.correct["ladder"].sum() < result.clean.sum()
    assert result.passes["ladder"]["backward"] == pytest.approx(sum(rung["backward"] for rung in rungs), abs=0.01)
    assert unlevelled(result) == []


def test_its_end_is_stronger_than_its_first_rung(noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    first = evaluate(noisy, images, labels, Threat("linf", 0.06), {"ladder": RUNG}, checks=False)
    whole = climbed(noisy, images, labels, 3)
    assert first.rungs == {}
    assert whole.harm["ladder"].mean() > first.harm["ladder"].mean() + 0.01


def test_a_ladder_that_ends_at_its_bound_is_flagged(
    noisy: nn.Module, images: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "LEVEL", -100.0)  # every doubling takes more than that
    result = climbed(noisy, images, labels, 2)
    assert len(result.rungs["ladder"]) == 3
    assert [flag.name for flag in unlevelled(result)] == ["ladder"]


@pytest.mark.parametrize(
    ("took", "flagged", "blocks"), [(0.4, 0, False), (0.5, 1, False), (2.0, 1, False), (2.1, 1, True)]
)
def test_a_bound_blocks_where_much_was_still_to_be_had(took: float, flagged: int, blocks: bool) -> None:
    result = Evaluation(*(np.zeros(10, kind) for kind in (np.int64, np.int64, np.float32)))
    result.rungs = {"ladder": [{"steps": 16, "draws": 2}, {"steps": 32, "draws": 4, "took": took}]}
    found = unlevelled(result)
    assert [(flag.attack, flag.blocks) for flag in found] == [(None, blocks)] * flagged
    assert all("32 steps of 4 draws" in flag.detail for flag in found)


def test_a_killed_climb_goes_on_where_it_was(noisy: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    whole = climbed(noisy, images, labels, 2, journal=Journal(tmp_path / "journal"))
    lines = (tmp_path / "journal").read_text().splitlines(keepends=True)
    (tmp_path / "journal").write_text("".join(lines[: len(lines) // 2]))
    resumed = climbed(noisy, images, labels, 2, journal=Journal(tmp_path / "journal"))
    assert resumed.rungs == whole.rungs
    assert (resumed.worst == whole.worst).all()
    assert (tmp_path / "journal").read_text() == "".join(lines)


def test_a_record_holds_the_ladder_and_reads_it(noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    found = measurements(climbed(noisy, images, labels, 1), CLASSES)
    read = Checkpoint.model_validate(found)
    assert [rung.model_dump(exclude_none=True) for rung in read.attacks["ladder"].rungs] == found["attacks"]["ladder"][
        "rungs"
    ]
    found["overstatement"] = {"n": 100, "fallen": 7, "points": 4.2, "low": 2.1, "high": 8.2}
    held = Checkpoint.model_validate(found).overstatement
    assert held is not None
    assert (held.n, held.points) == (100, 4.2)
    assert read.overstatement is None


def test_a_deterministic_network_meets_no_ladder(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    suite = {"pgd": {"attack": "pgd", "steps": 2}, "ladder": RUNG | {"doublings": 2}}
    assert list(evaluate(network, images, labels, THREAT, suite, checks=False).correct) == ["pgd"]


def test_an_attack_on_the_standing_leaves_the_others_numbers_alone(
    network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    first = {
        "pgd": {"attack": "pgd", "steps": 2, "relative_step": 0.02},
        "moved": {"attack": "transfer", "stored": "moved"},
    }
    after = {"apgd-t": {"attack": "apgd-t", "steps": 5, "among": "standing"}}
    square = {"square": {"attack": "square", "queries": 20, "among": "standing"}}
    last = {"margin": {"attack": "pgd", "steps": 2, "loss": "margin"}}
    stored = {"moved": fgsm(network, images, labels, THREAT)}
    plain, more = (
        evaluate(network, images, labels, THREAT, suite, stored=stored, checks=False)
        for suite in (first | last, first | after | square | last)
    )
    assert all((plain.correct[name] == more.correct[name]).all() for name in plain.correct)
    assert all(plain.passes[name] == more.passes[name] for name in plain.correct)
    # a gradient attack meets what the black box alone has turned, a black box meets what all left
    alone = more.correct["pgd"] & ~more.correct["moved"]
    assert alone.any()
    assert more.met["apgd-t"] == more.correct["pgd"].sum()
    assert more.met["square"] == (more.correct["apgd-t"] & more.correct["moved"]).sum()
    assert not (more.correct["apgd-t"] & ~more.correct["pgd"]).any()
    assert more.worst.sum() < (more.correct["pgd"] & more.correct["moved"]).sum()
    assert measurements(more, CLASSES)["attacks"]["apgd-t"]["met"] == more.met["apgd-t"]


def test_a_rung_doubles_what_it_takes_and_halves_its_steps() -> None:
    plan = plan_attack({"attack": "pgd", "steps": 5, "relative_step": 0.4, "eot": 3, "doublings": 4}, "suites.s")
    assert plan.rung(0).settings == plan.settings
    rung = plan.rung(2)
    assert (rung.settings, rung.eot, rung.doublings) == ({"steps": 10, "relative_step": 0.2}, 6, 0)
