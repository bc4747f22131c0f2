"""evaluate(): what it refuses, what it leaves alone, what it measures."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.evaluation.conftest import THREAT
from turncoat.attacks import Counter, Threat
from turncoat.attacks.threat import check_inside
from turncoat.errors import TurncoatError
from turncoat.evaluation import Suite, evaluate, plan_suite
from turncoat.evaluation.recording import evaluation_cost, measurements
from turncoat.evaluation.suite import Planned

PGD = {"pgd": {"attack": "pgd", "steps": 5}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x, y: (x * 255, y), r"values in \[0, 1\] wanted, these reach from 0 to 255; divide them by 255"),
        (lambda x, y: (x - 0.5, y), "undo their normalisation: it belongs into the model"),
        (lambda x, y: (x * float("nan"), y), "values in"),
        (lambda x, y: (x.double(), y), "images: float32"),
        (lambda x, y: ((x * 255).byte(), y), "images: float32"),
        (lambda x, y: (x[:, 0], y), "images: float32"),
        (lambda x, y: (x[:0], y[:0]), "images: float32"),
        (lambda x, y: (x, y.float()), "labels: int64"),
        (lambda x, y: (x, y[:-1]), "labels: int64"),
        (lambda x, y: (x, y + 10), r"model: outputs \(200, 10\), but labels reach up to 19"),
    ],
)
@pytest.mark.fault(10, "0-255 images, labels and outputs that do not fit", "refused, says which")
def test_wrong_input_is_refused(change, says: str, network: nn.Module, images: Tensor, labels: Tensor) -> None:
    with pytest.raises(TurncoatError, match=says):
        evaluate(network, *change(images, labels), THREAT, PGD)


def test_a_network_without_finite_outputs_is_refused(images: Tensor, labels: Tensor) -> None:
    with pytest.raises(TurncoatError, match="not finite"):
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).apply(_nan), images, labels, THREAT, PGD)


def _nan(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.constant_(module.weight, float("nan"))


@pytest.mark.parametrize("threat", [Threat("linf", 0.1), Threat("l2", 0.5), Threat("l1", 2.0)])
def test_check_inside(threat: Threat, images: Tensor) -> None:
    inside = threat.random_start(images, torch.Generator().manual_seed(0))
    check_inside(inside, images, threat, "a")
    check_inside(images, images, threat, "a")
    far = images.clone()
    far[7, 0, 3, 3] = 1 - far[7, 0, 3, 3].round()
    far[7, 0, 4] = 1 - far[7, 0, 4].round()
    with pytest.raises(TurncoatError, match="attack a: left its threat"):
        check_inside(far, images, threat, "a")
    check_inside(far, images, None, "a")  # no ball, but the box
    for bad in (inside + 2e-6 + (1 - inside.max()), inside * float("nan")):
        with pytest.raises(TurncoatError, match="left its threat"):
            check_inside(bad, images, None, "a")


@pytest.mark.fault(11, "an attack that answers outside its ball", "the evaluation stops")
def test_a_cheating_attack_stops_the_evaluation(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    def cheat(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        return images.flip(0)

    with pytest.raises(TurncoatError, match="attack cheat: left its threat"):
        evaluate(network, images, labels, THREAT, Suite("s", {"cheat": Planned(cheat)}))


def test_what_an_attack_claims_does_not_count(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    def idle(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        return images

    result = evaluate(network, images, labels, THREAT, Suite("s", {"idle": Planned(idle)}), checks=False)
    assert (result.correct["idle"] == result.clean).all()


def test_only_rightly_classified_images_are_attacked(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    met: list[Tensor] = []

    def watch(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        met.append(labels)
        assert bool((model(images).argmax(1) == labels).all())
        return images

    suite = Suite("s", {"watch": Planned(watch)}, batch_size=64)
    result = evaluate(network, images, labels, THREAT, suite, checks=False)
    assert [len(batch) for batch in met] == [64, 64, 64, int(result.clean.sum()) - 192]


def test_batches_do_not_change_a_deterministic_attack(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    suite = {"pgd": {"attack": "pgd", "steps": 10, "start": "none"}}
    whole, parts = (
        evaluate(network, images, labels, THREAT, plan_suite("s", suite, batch_size=size), checks=False)
        for size in (500, 7)
    )
    assert (whole.correct["pgd"] == parts.correct["pgd"]).all()


@pytest.mark.fault(12, "a whole evaluation", "mode, gradients, generator, inputs as they were")
def test_nothing_outside_is_touched(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    before = [value.clone() for value in (images, labels, *network.parameters())]
    state = torch.get_rng_state()
    evaluate(network, images, labels, THREAT, PGD)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, (images, labels, *network.parameters()), strict=True))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_all_passes_are_counted(monkeypatch, network: nn.Module, images: Tensor, labels: Tensor) -> None:
    # no faster twin here: this counter would not see what goes through it
    monkeypatch.setattr("turncoat.evaluation.runner.folded", lambda model, images: model)

    class Tally(Counter):  # copies count with the original
        def __deepcopy__(self, memo: object) -> "Tally":
            made = copy.copy(self)
            made.sums = self.sums
            return made

        def forward(self, images: Tensor) -> Tensor:
            self.sums["forward"] += len(images)
            logits: Tensor = self.model(images)
            if logits.requires_grad:
                logits.register_hook(lambda gradient: self.sums.update(backward=self.sums["backward"] + len(gradient)))
            return logits

    counter = Tally(network)
    counter.sums = {"forward": 0, "backward": 0}
    suite = plan_suite("s", PGD | {"auto": {"attack": "square", "queries": 20}}, radii=[0.5, 1.0])
    result = evaluate(counter, images, labels, THREAT, suite)
    cost = evaluation_cost(result)
    assert cost["forward"] == pytest.approx(counter.sums["forward"] / len(images), abs=0.01)
    assert cost["backward"] == pytest.approx(counter.sums["backward"] / len(images), abs=0.01)


def test_the_security_curve_falls(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    suite = plan_suite("s", {"pgd-20": {"attack": "pgd", "steps": 20}}, radii=[2.0, 0.1, 1.0, 0.5])
    result = evaluate(network, images, labels, THREAT, suite, checks=False)
    assert [point["epsilon"] for point in result.curve] == pytest.approx([0.015, 0.075, 0.15, 0.3])
    heights = [point["correct"] for point in result.curve]
    assert result.clean.sum() >= heights[0] > heights[1] > heights[2] >= heights[3]
    assert heights[2] <= result.correct["pgd-20"].sum()  # the same attack, and who fell to less has fallen


def test_a_threat_of_its_own_stays_out_of_the_worst_case(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    huge = {"attack": "pgd", "steps": 20, "threat": {"norm": "l2", "epsilon": 5.0}}
    suite = {"fgsm": {"attack": "fgsm"}, "l2": huge, "turn": {"attack": "rotate-translate", "angles": 5, "shifts": 3}}
    result = evaluate(network, images, labels, Threat("linf", 0.01), suite, checks=False)
    assert result.correct["l2"].sum() == 0 < result.worst.sum() <= result.correct["fgsm"].sum()
    found = measurements(result, [str(k) for k in range(10)])
    assert found["worst"]["attacks"] == ["fgsm"]
    assert found["attacks"]["l2"]["threat"] == {"norm": "l2", "epsilon": 5.0}
    assert found["attacks"]["turn"]["threat"] is None
    assert "threat" not in found["attacks"]["fgsm"]


def test_autoattack_is_told_part_by_part(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    suite = {"auto": {"attack": "autoattack", "steps": 10, "queries": 50}}
    few, theirs = images[:12], labels[:12]
    result = evaluate(network, few, theirs, Threat("linf", 0.05), suite, checks=False)
    parts = result.parts["auto"]
    assert list(parts) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    fallen = sum(part.astype(int) for part in parts.values())
    assert ((fallen == 1) == (result.clean & ~result.correct["auto"])).all()
    assert fallen.max() == 1
    assert 0 < result.correct["auto"].sum() < len(few)
    assert result.passes["auto"]["forward"] < 2 + 10 + 2 * 9 * 11 + 50  # its settings reach the parts


def test_transfer_takes_the_stored_image_of_each_place(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    suite = {"transfer": {"attack": "transfer", "stored": "mine"}}
    moved = (images + 0.1).clamp(0, 1)
    with torch.no_grad():
        expected = (network(moved).argmax(1) == labels) & (network(images).argmax(1) == labels)
    result = evaluate(network, images, labels, THREAT, suite, stored={"mine": moved}, checks=False)
    assert (result.correct["transfer"] == expected.numpy()).all()
    for wrong in ({}, {"other": moved}, {"mine": moved[:100]}):
        with pytest.raises(TurncoatError, match="no 200 stored images 'mine'"):
            evaluate(network, images, labels, THREAT, suite, stored=wrong, checks=False)


def test_shifts_corruptions_and_universal(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    suite = plan_suite(
        "s",
        {"fgsm": {"attack": "fgsm"}},
        shifts=["blur", "noise"],
        corruptions=["contrast"],
        severities=[1, 5],
        universal={"form": "sgd", "passes": 40},
    )
    with pytest.raises(TurncoatError, match="held_out"):
        evaluate(network, images[:100], labels[:100], THREAT, suite, checks=False)
    held_out = images[100:], labels[100:]
    found = [
        evaluate(network, images[:100], labels[:100], THREAT, suite, held_out=held_out, checks=False) for _ in range(2)
    ]
    result = found[0]
    assert [(row["shift"], row["severity"]) for row in result.shifts] == [
        ("blur", 1), ("blur", 5), ("noise", 1), ("noise", 5),
    ]  # fmt: skip
    assert result.shifts[3]["correct"] < result.shifts[2]["correct"] <= 100
    assert [row["corruption"] for row in result.corruptions] == ["contrast"] * 2
    assert [row["n"] for row in result.universal] == [int((labels[:100] != k).sum()) for k in range(10)]
    chance = [int((network(images[:100]).argmax(1) == k).sum()) - int((labels[:100] == k).sum()) for k in range(10)]
    assert sum(row["reached"] for row in result.universal) > 100 + sum(map(abs, chance))
    assert [row["reached"] for row in result.universal] == [row["reached"] for row in found[1].universal]
    assert result.shifts == found[1].shifts
    # image by image as well
    assert [int(result.scenes[f"shift {row['shift']} {row['severity']}"].sum()) for row in result.shifts] == [
        row["correct"] for row in result.shifts
    ]
    for row in result.universal:
        stayed = result.scenes[f"universal {row['target']}"]
        assert int((~stayed).sum()) == row["reached"]
        assert stayed[labels[:100].numpy() == row["target"]].all()
    # making them costs passes too: 40 over the 100 held-out images for each of ten classes, less their own
    assert 350 <= result.overhead["backward"] <= 400


def test_classes_and_subsets_add_up(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    result = evaluate(network, images, labels, THREAT, PGD, checks=False)
    baseline = np.arange(len(labels)) % 3 > 0
    found = measurements(result, [str(k) for k in range(10)], baseline)
    for rows in (found["per_class"], found["subsets"]):
        assert sum(row["n"] for row in rows) == len(labels)
        assert sum(row["clean"] for row in rows) == found["clean"]["correct"]
        assert sum(row["worst"] for row in rows) == found["worst"]["correct"]
    assert [row["subset"] for row in found["subsets"]] == ["baseline-right", "baseline-wrong"]
