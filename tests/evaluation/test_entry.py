"""Networks and images of one's own: taken where it is harmless, else refused in a line before any attack."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from turncoat.attacks import CORRUPTIONS, Threat, pgd
from turncoat.errors import TurncoatError
from turncoat.evaluation import evaluate, plan_suite
from turncoat.evaluation.closed_form import NearestMean, can_fall

PGD = {"pgd": {"attack": "pgd", "steps": 5}}
LINF = Threat("linf", 0.05)


def linear(pixels: int = 192, classes: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes)).eval()


def pictures(count: int = 20, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(1))


class Gives(nn.Module):
    """A linear network with something done to its output."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network, self.change = linear(), change

    def forward(self, images: Tensor) -> Any:
        return self.change(self.network(images))


def never(*_: Any, **__: Any) -> Tensor:
    raise AssertionError("an attack was run")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda z: (z, z[:, :2]), r"forward returned tuple of \(2, 4\), \(2, 2\); wrap it"),
        (lambda z: {"logits": z, "loss": 0}, "forward returned dict with logits, loss; wrap it"),
        (lambda z: [z], r"forward returned list of \(2, 4\)"),
        (lambda z: z.detach().numpy(), "forward returned ndarray, no tensor of torch"),
        (lambda z: z.squeeze(0), r"forward returned \(4,\) for 1 images; .*`squeeze`"),
        (lambda z: z.argmax(1, keepdim=True), "forward returned torch.int64"),
        (lambda z: z[:, :1], r"outputs \(20, 1\), a class needs a logit of its own; of one logit z"),
        (lambda z: z[..., None, None], r"forward returned \(2, 4, 1, 1\) for 2 images; .*one row an image"),
    ],
)
@pytest.mark.fault(33, "outputs that are no logits", "a line with what came and which wrapper is wanted")
def test_what_forward_returns_is_told(change: Callable[[Tensor], Any], says: str, monkeypatch) -> None:
    monkeypatch.setattr("turncoat.evaluation.runner.call", never)
    with pytest.raises(TurncoatError, match=says) as error:
        evaluate(Gives(change), pictures(), torch.zeros(20, dtype=torch.long), LINF, PGD)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (lambda: linear().double(), "weights are torch.float64, images float32: hand in model.float"),
        (lambda: linear().half(), "weights are torch.float16"),
        (lambda: linear(64), r"could not be run on images \(2, 3, 8, 8\) float32 in \[0, 1\]: RuntimeError"),
    ],
)
@pytest.mark.fault(33, "float64 or half weights, wrong channels", "a line with what is wanted")
def test_a_network_that_fails_is_told(network: Callable[[], nn.Module], says: str) -> None:
    with pytest.raises(TurncoatError, match=says):
        evaluate(network(), pictures(), torch.zeros(20, dtype=torch.long), LINF, PGD)


@pytest.mark.parametrize("kind", ["half", "bfloat16", "double"])
def test_outputs_of_other_precisions_work(kind: str) -> None:
    images = pictures()
    labels = linear()(images).argmax(1)
    found, plain = (
        evaluate(network, images, labels, LINF, PGD, checks=False)
        for network in (Gives(lambda z: getattr(z, kind)()), linear())
    )
    assert abs(found.worst.mean() - plain.worst.mean()) <= 0.1


@pytest.mark.parametrize(
    ("suite", "given", "says"),
    [
        ({"t": {"attack": "transfer", "stored": "a"}}, {}, "no 20 stored images 'a'"),
        ({"t": {"attack": "transfer", "stored": "a"}}, {"stored": {"a": torch.rand(20, 1, 8, 8)}}, "stored 'a': float"),
        (plan_suite("s", PGD, universal={"form": "sgd"}), {}, "held_out"),
        (
            plan_suite("s", PGD, universal={"form": "sgd"}),
            {"held_out": (pictures(4) * 255, [0] * 4)},
            "held_out images",
        ),
        (plan_suite("s", PGD, universal={"form": "sgd"}), {"held_out": (pictures(4, 1), [0] * 4)}, r"\(3, 8, 8\)"),
        (plan_suite("s", PGD, universal={"form": "sgd"}), {"held_out": (pictures(4), [9] * 4)}, "reach up to 9"),
        (PGD, {"labels": [-1] * 20}, "classes from 0 wanted, these reach down to -1"),
        (PGD, {"threat": "linf"}, "threat: Threat"),
        (PGD, {"images": DataLoader(TensorDataset(pictures())), "labels": None}, r"batches \(images, labels\) wanted"),
        (PGD, {"images": DataLoader(TensorDataset(pictures()))}, "labels: None wanted beside a DataLoader"),
        (PGD, {"batch_size": 0}, "batch_size: a number of images from 1"),
        (PGD, {"images": pictures() * 1.00001 + 0.001}, r"reach from 0\.00\d+ to 1\.0\d{4,}; clip them"),
    ],
)
@pytest.mark.fault(10, "a suite that cannot work with what is given", "refused before any attack")
def test_what_cannot_work_is_refused_before_any_attack(suite, given: dict[str, Any], says: str, monkeypatch) -> None:
    monkeypatch.setattr("turncoat.evaluation.runner.call", never)
    asked = {"images": pictures(), "labels": [0] * 20, "threat": LINF} | given
    with pytest.raises(TurncoatError, match=says):
        evaluate(linear(), asked.pop("images"), asked.pop("labels"), asked.pop("threat"), suite, **asked)


@pytest.mark.parametrize("channels", [2, 4])
def test_scenes_for_other_channels_are_refused_before_any_attack(channels: int, monkeypatch) -> None:
    monkeypatch.setattr("turncoat.evaluation.runner.call", never)
    suite = plan_suite("s", PGD, corruptions=["jpeg_compression"])
    with pytest.raises(TurncoatError, match="corruption jpeg_compression does not take images"):
        evaluate(linear(64 * channels), pictures(20, channels), [0] * 20, LINF, suite)


def test_what_is_harmless_is_taken() -> None:
    images = pictures()
    labels = linear()(images).argmax(1)
    plain = evaluate(linear(), images, labels, LINF, PGD, checks=False)
    over = images.clone()
    over[0, 0, 0, 0] = 1.0000001
    for given in (
        (images.numpy(), labels.numpy().astype(np.int32), ("linf", 0.05)),
        (images, labels.tolist(), Threat("linf", np.float64(0.05))),
        (over, labels, LINF),
    ):
        found = evaluate(linear(), *given, PGD, checks=False)
        assert abs(found.worst.mean() - plain.worst.mean()) < 0.06
    assert Threat("linf", np.float32(8 / 255)).epsilon == pytest.approx(8 / 255)


def test_images_may_ask_for_gradients_and_lie_in_any_order(tmp_path: Path) -> None:
    network, images, labels = linear(), pictures(), torch.arange(20) % 4
    plain = evaluate(network, images, labels, LINF, PGD, checks=False)
    asking = images.clone().requires_grad_(True)
    found = evaluate(network, asking, labels, LINF, PGD, checks=False, batch_size=np.int64(4))
    assert (found.worst == plain.worst).all()
    assert asking.grad is None
    stored = np.memmap(tmp_path / "images", np.float32, "w+", shape=images.shape)
    stored[:] = images.numpy()[::-1]
    assert (evaluate(network, stored[::-1], labels, LINF, PGD, checks=False).worst == plain.worst).all()


@pytest.mark.fault(12, "under torch.inference_mode()", "the same as without")
def test_inference_mode_changes_nothing() -> None:
    images = pictures(60)
    labels = linear()(images).argmax(1)
    network, outside = linear(), evaluate(linear(), images, labels, LINF, PGD, checks=False)
    with torch.inference_mode():
        inside = evaluate(linear(), images.clone(), labels.clone(), LINF, PGD, checks=False)
        alone = pgd(network, images, labels, LINF, steps=5, generator=torch.Generator().manual_seed(0))
        made_inside = evaluate(linear(), images, labels, LINF, PGD, checks=False)
    assert (outside.worst == inside.worst).all()
    assert (outside.worst == made_inside.worst).all()
    assert torch.equal(alone, pgd(linear(), images, labels, LINF, steps=5, generator=torch.Generator().manual_seed(0)))
    assert outside.worst.mean() < 0.6


@pytest.mark.fault(12, "a network that works in place", "the caller's images as they were; said once")
def test_a_network_that_works_in_place_leaves_the_images() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = linear()

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images.sub_(0.5).div_(0.25))

    images = pictures()
    before = images.clone()
    labels = linear()((images - 0.5) / 0.25).argmax(1)
    result = evaluate(InPlace(), images, labels, LINF, PGD, checks=False)
    assert torch.equal(images, before)
    assert [flag.blocks for flag in result.flags if flag.name == "in-place"] == [False]
    assert result.clean.all()
    assert result.worst.mean() < 0.9


class KeptOn(nn.Module):
    """Batch norm kept on by an overridden `train`."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(1), linear(64, 10)
        self.eval()

    def train(self, mode: bool = True) -> "KeptOn":
        super().train(mode)
        self.norm.train()
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(images))


@pytest.mark.fault(12, "batch norm kept on in eval mode", "attacked as it is scored; buffers as they were")
def test_attack_and_verdict_meet_one_mode() -> None:
    network, images = KeptOn(), pictures(200, 1) * 0.1 + 0.5
    buffers = [value.clone() for value in network.buffers()]
    labels = copy_of(network)(images).argmax(1)
    result = evaluate(
        network, images, labels, Threat("linf", 0.005), {"pgd": {"attack": "pgd", "steps": 20}}, checks=False
    )
    assert result.clean.all()
    assert result.worst.mean() < 0.2
    assert "batch-dependent" in {flag.name for flag in result.flags if flag.blocks}
    pgd(network, images, labels, Threat("linf", 0.005), steps=2, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(buffers, network.buffers(), strict=True))


def copy_of(network: nn.Module) -> nn.Module:
    made = type(network)()
    made.load_state_dict(network.state_dict())
    return made


def spectral() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.utils.spectral_norm(nn.Linear(192, 4)))
    network(pictures()).sum().backward()
    return network.eval()


def locked() -> nn.Module:
    network = linear()
    network.lock = threading.Lock()
    return network


class Whole(nn.Module):
    """Hands out itself in place of a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.network = linear()

    def __deepcopy__(self, memo: object) -> "Whole":
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


@pytest.mark.parametrize(
    "make",
    [
        spectral,
        locked,
        Whole,
        lambda: torch.jit.trace(linear(), pictures(2)),
        lambda: torch.jit.script(linear()),
        lambda: torch.export.export(
            linear(), (pictures(3),), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},), strict=False
        ).module(),
    ],
    ids=["spectral norm", "a lock", "itself", "traced", "scripted", "exported"],
)
@pytest.mark.fault(33, "no copy to be had, TorchScript, exported modules", "evaluated all the same")
def test_networks_that_cannot_be_copied_work(make: Callable[[], nn.Module]) -> None:
    network, images = make(), pictures()
    labels = network(images).argmax(1)
    result = evaluate(network, images, labels, Threat("linf", 0.1), PGD, checks=False)
    assert result.clean.all()
    assert result.worst.mean() < 0.9
    assert not {flag.name for flag in result.flags if flag.blocks}


def test_stored_images_beyond_the_ball_are_brought_into_it() -> None:
    images = pictures()
    labels = linear()(images).argmax(1)
    suite = {"t": {"attack": "transfer", "stored": "far"}}
    far = {"far": 1 - images}
    result = evaluate(linear(), images, labels, LINF, suite, stored=far, checks=False)
    near = evaluate(
        linear(), images, labels, LINF, suite, stored={"far": LINF.project(far["far"], images)}, checks=False
    )
    assert (result.worst == near.worst).all()
    assert [(flag.name, flag.attack, flag.blocks) for flag in result.flags] == [("stored-moved", "t", False)]


@pytest.mark.parametrize("name", ["motion_blur", "defocus_blur", "snow"])
def test_corruptions_take_any_strides(name: str) -> None:
    images = pictures(6).to(memory_format=torch.channels_last)
    plain, other = (
        CORRUPTIONS[name](given, 1, torch.Generator().manual_seed(0)) for given in (images.contiguous(), images)
    )
    assert torch.allclose(plain, other, atol=1e-6)
    CORRUPTIONS[name](torch.rand(6, 9, 14, 3).permute(0, 3, 1, 2), 1, torch.Generator())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_closed_form_is_the_same_in_small_pieces(norm: str, monkeypatch) -> None:
    images, labels = pictures(30), torch.arange(30) % 5
    model, threat = NearestMean(images, labels), Threat(norm, 0.05)
    whole = can_fall(model, images, labels, threat)
    monkeypatch.setattr("turncoat.evaluation.closed_form.AT_ONCE", 1)
    assert torch.equal(whole, can_fall(model, images, labels, threat))


def test_a_check_that_fails_costs_only_itself(monkeypatch) -> None:
    images = pictures()
    labels = linear()(images).argmax(1)
    plain = evaluate(linear(), images, labels, LINF, PGD)
    seen = []

    def broken(*_: Any) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr("turncoat.evaluation.probes.on_a_linear_classifier", broken)
    result = evaluate(linear(), images, labels, LINF, PGD, measured=lambda found: seen.append(found.worst.mean()))
    assert (result.worst == plain.worst).all()
    assert [flag.blocks for flag in result.flags if "could not be done: no more" in flag.detail] == [False]
    monkeypatch.setattr("turncoat.evaluation.probes.unbounded", broken)
    result = evaluate(linear(), images, labels, LINF, PGD)
    assert (result.correct["pgd"] == plain.correct["pgd"]).all()
    assert {flag.name for flag in result.flags if flag.blocks} == {"unchecked"}
    assert seen


@pytest.mark.parametrize("error", [KeyError("lost"), ZeroDivisionError(), TurncoatError("left its ball")])
def test_whatever_an_audit_or_a_last_look_raises_leaves_the_other_flags(error: Exception, monkeypatch) -> None:
    def broken(*_: Any) -> None:
        raise error

    images = pictures() * 0.05  # dark: a flag of its own
    labels = linear()(images).argmax(1)
    monkeypatch.setattr("turncoat.evaluation.audit.audit", broken)
    monkeypatch.setattr("turncoat.evaluation.steadiness.Steadiness.last", broken)
    result = evaluate(linear(), images, labels, Threat("linf", 0.001), PGD)
    assert [flag.name for flag in result.flags if flag.blocks].count("unchecked") == 2
    assert {flag.name for flag in result.flags} > {"unchecked"}
    assert (
        result.correct["pgd"] == evaluate(linear(), images, labels, Threat("linf", 0.001), PGD, checks=False).worst
    ).all()
