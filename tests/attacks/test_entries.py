"""What a suite's entry may ask of any attack: reduced precision, a compiled step."""

import pytest
import torch
from torch import Tensor, nn

from turncoat.attacks import ATTACKS, Threat, autoattack
from turncoat.errors import TurncoatError
from turncoat.evaluation import evaluate
from turncoat.evaluation.suite import Planned, plan_attack, reduced

from .nets import busy, pictures, predicted, seeded

LINF = Threat("linf", 0.1)
NEEDED = {"pgd": {"steps": 3}, "apgd": {"steps": 5}, "apgd-t": {"steps": 5}, "autoattack": {"steps": 3, "queries": 5}}
NEEDED |= {"fab": {"steps": 3}, "fab-t": {"steps": 3}, "square": {"queries": 5}, "stadv": {"steps": 2}}


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
