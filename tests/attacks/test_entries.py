"""What a suite's entry may ask of any attack, and how many images an attack meets at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from turncoat.attacks import ATTACKS, Counter, Threat, autoattack, capacity, deepfool, square, stadv
from turncoat.attacks.autoattack import ensemble
from turncoat.attacks.board import Board
from turncoat.attacks.square import window_side
from turncoat.errors import TurncoatError
from turncoat.evaluation import Suite, evaluate
from turncoat.evaluation.journal import Journal
from turncoat.evaluation.planned import Planned, reduced
from turncoat.evaluation.results import Evaluation
from turncoat.evaluation.suite import plan_attack

from .nets import busy, linear, pictures, predicted, seeded

LINF = Threat("linf", 0.1)
NEEDED = {"pgd": {"steps": 3}, "apgd": {"steps": 5}, "apgd-t": {"steps": 5}, "autoattack": {"steps": 3, "queries": 5}}
NEEDED |= {
    "momentum": {"steps": 3},
    "fab": {"steps": 3},
    "fab-t": {"steps": 3},
    "square": {"queries": 5},
    "stadv": {"steps": 2},
}


class Watched(nn.Module):
    """Notes the precision in which the last layer computes, and what comes out of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.inside, self.outside = busy(), set(), set()

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images)
        self.inside.add(logits.dtype)
        self.outside.add(logits.float().dtype)
        return logits.float()


@pytest.mark.parametrize("name", ATTACKS)
def test_an_entry_may_reduce_the_precision_of_its_attack_alone(name: str) -> None:
    plain, entry = {"attack": name, **NEEDED.get(name, {})}, Watched().eval()
    images = pictures(6, 8)
    labels = predicted(entry.net, images)
    assert plan_attack(plain, "suites.s").precision == "float32"
    for precision, kinds in (("float32", {torch.float32}), ("bfloat16", {torch.bfloat16})):
        planned = plan_attack(plain | ({} if precision == "float32" else {"precision": precision}), "suites.s")
        for part in planned.parts(LINF).values():
            entry.inside.clear()
            adversarial = part(entry, images, labels, LINF, generator=seeded())
            assert kinds <= entry.inside
            assert adversarial.dtype == torch.float32
            assert adversarial.min() >= 0
            assert adversarial.max() <= 1
            assert planned.spatial or (LINF.distance(adversarial, images) <= 0.1 + 1e-6).all()
            assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("precision", ["half", "float64", True, 16])
def test_an_unknown_precision_is_refused(precision: object) -> None:
    with pytest.raises(TurncoatError, match=r"suites\.s\.precision: .* is not defined; .*float32"):
        plan_attack({"attack": "fgsm", "precision": precision}, "suites.s")


class Rough(nn.Module):
    """Turned by every other image in reduced precision, by none in float32."""

    def forward(self, images: Tensor) -> Tensor:
        lied = torch.is_autocast_enabled("cpu") and torch.arange(len(images)) % 2 == 1
        mean = images.flatten(1).mean(1)
        return torch.stack([torch.full_like(mean, 10.0), mean + 20 * torch.as_tensor(lied), 0 * mean, -mean], 1)


def test_verdicts_stay_those_of_float32() -> None:
    """An ensemble's later parts meet who stands in float32, and so does the evaluation's count."""
    images, labels, seen = pictures(6), torch.zeros(6, dtype=torch.int64), []

    def progress(items: int, standing: int) -> None:
        seen.append(standing)

    run = reduced(autoattack, "bfloat16")
    run(Rough(), images, labels, LINF, steps=2, queries=3, generator=seeded(), progress=progress)
    assert set(seen) == {6}
    suite = {"pgd": {"attack": "pgd", "steps": 3, "precision": "bfloat16"}}
    result = evaluate(Rough(), images, labels, LINF, suite, checks=False)
    assert result.correct["pgd"].all()


def test_the_function_itself_is_what_flags_look_at() -> None:
    planned = plan_attack({"attack": "square", "queries": 5, "precision": "bfloat16"}, "suites.s")
    assert planned == Planned(ATTACKS["square"], {"queries": 5}, precision="bfloat16")
    assert planned.kind == "black box"


@pytest.mark.parametrize(("side", "expected"), [(4, 500), (8, 500), (28, 63), (32, 48), (224, 1), (400, 1)])
def test_the_batch_size_found_for_a_cpu_hangs_on_the_pixels_alone(side: int, expected: int) -> None:
    for channels in (1, 3):
        images = torch.zeros(1, 1, 1, 1).expand(2, channels, side, side)
        assert capacity.batch_size(busy(channels), images) == expected


def test_the_batch_size_found_for_a_gpu_fits_into_its_memory() -> None:
    for free in (1e6, 3e8, 8e9, 1.4e11):
        for image in (1.0, 2e5, 3e7):
            size = capacity.fitting(free, image)
            assert size == 1 or size * image <= capacity.SHARE * free
            assert size == capacity.MOST_ON_CUDA or 2 * size * image > capacity.SHARE * free
            assert size & (size - 1) == 0
    assert capacity.fitting(0.0, 1e6) == 1


def test_a_killed_evaluation_goes_on_with_the_batch_size_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another size would draw other numbers: as much as the memory that is free differs between two runs."""
    model, images = linear().eval(), pictures(30)
    labels = predicted(model, images)
    suite = Suite("s", {"pgd": plan_attack({"attack": "pgd", "steps": 2}, "suites.s")}, batch_size="auto")

    def run(found: int, journal: Journal) -> Evaluation:
        monkeypatch.setattr(capacity, "batch_size", lambda model, images: found)
        return evaluate(model, images, labels, Threat("linf", 0.03), suite, journal=journal, checks=False)

    class Killed(Exception):
        pass

    class Dying(Journal):
        def once(self, key: str, work: Callable[[], object]) -> object:
            if "pgd 1" in key:
                raise Killed
            return super().once(key, work)

    whole = run(7, Journal())
    with pytest.raises(Killed):
        run(7, Dying(tmp_path / "journal"))
    resumed = run(11, Journal(tmp_path / "journal"))
    assert (resumed.correct["pgd"] == whole.correct["pgd"]).all()
    assert resumed.passes == whole.passes
    assert 0 < whole.correct["pgd"].sum() < 30


def test_fallen_images_leave_stadv() -> None:
    """One of a hundred stands at first; the others cost one look each, and it ends as if it were alone."""
    model, images = linear().eval(), 0.4 + 0.2 * pictures(100, 4)
    labels = (predicted(model, images) + 1) % 4
    stands = int((model(images).amax(1) - model(images).median(1).values).argmax())
    labels[stands] = predicted(model, images)[stands]
    counter = Counter(model)
    moved = stadv(counter, images, labels, steps=50, pixels=0.01)
    assert (counter.forwards, counter.backwards) == (100 + 50, 100 + 49)
    one = slice(stands, stands + 1)
    alone = stadv(model, images[one], labels[one], steps=50, pixels=0.01)
    assert torch.allclose(moved[one], alone, atol=1e-5)


@pytest.mark.parametrize("attack", [stadv, deepfool])
def test_looking_seldom_who_has_fallen_changes_no_result(
    attack: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU looking stalls the device (`Board.due`)."""
    model, images = linear().eval(), 0.4 + 0.2 * pictures(30, 4)
    labels = predicted(model, images)
    often = attack(model, images, labels, Threat("linf", 1.0), steps=20)
    assert (predicted(model, often) != labels).sum() > 5
    monkeypatch.setattr(Board, "due", lambda self, step: step % 8 == 0)
    assert torch.allclose(attack(model, images, labels, Threat("linf", 1.0), steps=20), often, atol=1e-5)


def test_square_within_autoattack_halves_its_windows_as_in_ten_thousand_queries() -> None:
    assert all(ensemble(version, LINF)["square"].keywords["rescale"] is False for version in ("standard", "plus"))
    shape = torch.Size([1, 3, 32, 32])
    assert [window_side(0.8, 4999, scale, shape) for scale in (5000, 10_000)] == [1, 3]  # p / 512 and p / 128
    model, images = busy().eval(), pictures(4, 8)
    given = (model, images, predicted(model, images), Threat("linf", 0.001))
    plain, spread, fixed = (
        square(*given, queries=30, generator=seeded(), **more) for more in ({}, {"rescale": True}, {"rescale": False})
    )
    assert torch.equal(plain, spread)
    assert not torch.equal(spread, fixed)
