"""Attacks that are no norm ball: moved pixels, shifted scenes, corruptions, stored images, wrapped networks."""

import pytest
import torch
from torch import Tensor, nn

from turncoat.attacks import (
    CORRUPTIONS,
    SHIFTS,
    Counter,
    Threat,
    apgd,
    bpda,
    eot,
    fixed,
    pgd,
    rotate_translate,
    stadv,
    transfer,
    universal_success,
)  # fmt: skip
from turncoat.attacks.spatial import rigid, warp

from .nets import linear, pictures, predicted, seeded

CHANGES = {f"shift-{name}": change for name, change in SHIFTS.items()} | CORRUPTIONS


def scenery(count: int, side: int, channels: int) -> Tensor:
    """Smooth coloured images that use the whole range."""
    coarse = pictures(count, 4, channels, seed=5)
    fine = nn.functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=True)
    return ((fine - 0.5) * 1.5 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_keeps_the_form_and_grows_with_its_severity(name: str) -> None:
    change = CHANGES[name]
    for images in (scenery(16, 8, 1), scenery(8, 32, 3)):
        kept, strength = images.clone(), []
        for severity in range(1, 6):
            changed = change(images, severity, seeded())
            assert changed.shape == images.shape
            assert changed.dtype == torch.float32
            assert changed.min() >= 0
            assert changed.max() <= 1
            assert torch.equal(changed, change(images, severity, seeded()))
            strength.append(float((changed - images).square().mean()))
        assert torch.equal(images, kept)
        assert strength[4] > strength[0]
        assert strength[4] > 1e-5
    with pytest.raises(ValueError, match="severity: 6 is not allowed"):
        change(images, 6, seeded())


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_takes_photographs(name: str) -> None:
    images = scenery(1, 224, 3)
    changed = CHANGES[name](images, 3, seeded())
    assert changed.shape == images.shape
    assert 1e-6 < float((changed - images).abs().mean()) < 0.5


@pytest.mark.parametrize(
    "name", ["shift-noise", "shift-rotation", "snow", "fog", "elastic_transform", "gaussian_noise"]
)
def test_random_changes_follow_the_generator_alone(name: str) -> None:
    images, before = scenery(4, 16, 3), torch.get_rng_state()
    one, other = CHANGES[name](images, 3, seeded(1)), CHANGES[name](images, 3, seeded(2))
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_moving_nothing_changes_nothing_and_moving_moves() -> None:
    images = pictures(2, 6)
    assert torch.allclose(rigid(images, 0, 0, 0), images, atol=1e-6)
    assert torch.allclose(rigid(images, 90, 0, 0), images.rot90(-1, (2, 3)), atol=1e-5)
    assert torch.allclose(rigid(images, 0, 1, 0)[..., 1:], images[..., :-1], atol=1e-6)
    assert torch.allclose(rigid(images, 0, 0, -2)[..., :-2, :], images[..., 2:, :], atol=1e-6)
    flow = torch.zeros(2, 6, 6, 2)
    assert torch.allclose(warp(images, flow), images, atol=1e-6)
    flow[..., 0] = 1
    assert torch.allclose(warp(images, flow)[..., :-1], images[..., 1:], atol=1e-6)
    assert torch.allclose(warp(images, flow)[..., -1], images[..., -1], atol=1e-6)


class LeftOrRight(nn.Module):
    """Says on which half the light is."""

    def forward(self, images: Tensor) -> Tensor:
        half = images.shape[-1] // 2
        return torch.stack([images[..., :half].sum((1, 2, 3)), images[..., half:].sum((1, 2, 3))], 1)


def test_spatial_attacks_find_a_shift() -> None:
    images = torch.zeros(2, 1, 8, 8)
    images[0, 0] = torch.tensor([0, 0.1, 0.3, 0.7, 0.55, 0.2, 0, 0])  # beside the middle
    images[1, 0] = torch.tensor([0.6, 0.5, 0.1, 0, 0, 0, 0, 0])  # far from it
    labels = torch.zeros(2, dtype=torch.int64)
    model = Counter(LeftOrRight())
    grid = rotate_translate(model, images, labels, degrees=0, angles=1, pixels=1, shifts=3)
    assert (predicted(model, grid) != labels).tolist() == [True, False]
    assert model.forwards <= 2 + 9 * 2 + 2
    turned = rotate_translate(model, images, labels, degrees=180, angles=3, pixels=0, shifts=1)
    assert (predicted(model, turned) != labels).all()
    flowed = stadv(LeftOrRight(), images, labels, pixels=1.0, steps=40)
    assert (predicted(LeftOrRight(), flowed) != labels).tolist() == [True, False]
    assert (flowed.amax((1, 2, 3)) <= 1).all()


def test_transfer_answers_with_what_is_stored() -> None:
    images, labels, threat = pictures(3), torch.zeros(3, dtype=torch.int64), Threat("linf", 8 / 255)
    stored = pgd(linear(), images, labels, threat, steps=3, generator=seeded())
    assert torch.equal(transfer(stored)(linear(), images, labels, threat), stored)
    rounded = transfer((stored * 255).round().to(torch.uint8))(linear(), images, labels, threat)
    assert (rounded - stored).abs().max() <= 0.5 / 255 + 1e-6
    assert (threat.distance(rounded, images) <= 8 / 255 + 1e-6).all()
    with pytest.raises(ValueError, match="stored: one stored image for each attacked image"):
        transfer(stored[:2])(linear(), images, labels, threat)


class Noisy(nn.Module):
    """A network behind noise that hides its gradient's direction in a single pass."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.net, self.strength = linear(), strength

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) * (1 + self.strength * torch.randn(len(images), 1))


def test_eot_averages_draws() -> None:
    images = pictures(4)
    for at_once in (True, False):
        torch.manual_seed(0)
        mean = eot(Noisy(1.0), 2000, at_once=at_once)(images)
        assert torch.allclose(mean, linear()(images), rtol=0.15, atol=0.05)
    counter = Counter(Noisy(0.1))
    pgd(eot(counter, 5), images, torch.zeros(4, dtype=torch.int64), Threat("linf", 0.1), steps=2, generator=seeded())
    assert (counter.forwards, counter.backwards) == (4 * 5 * 2, 4 * 5 * 2)
    with pytest.raises(ValueError, match="draws: 0"):
        eot(Noisy(1.0), 0)


def test_lean_eot_has_the_gradient_of_the_mean_and_the_memory_of_one_draw() -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 3)).train()
    images = pictures(5, side=8)

    def run(network: nn.Module) -> tuple[Tensor, int]:
        held = []

        def keep(tensor: Tensor) -> Tensor:
            held.append(tensor)
            return tensor

        at = images.clone().requires_grad_()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = network(at).square().sum()
            size = sum(tensor.untyped_storage().nbytes() for tensor in held)
            return torch.autograd.grad(loss, at)[0], size

    def mean(at: Tensor) -> Tensor:
        return torch.stack([net(at) for _ in range(16)]).mean(0)

    lean, few = run(eot(net, 16, at_once=False)), run(eot(net, 2, at_once=False))
    whole = run(mean)
    assert torch.allclose(lean[0], whole[0], rtol=1e-5, atol=1e-7)
    assert lean[1] - few[1] < (whole[1] - few[1]) / 20  # 14 draws more hold next to nothing more
    assert whole[1] > 5 * lean[1]


def test_a_fixed_network_repeats_itself_and_leaves_the_generators_alone() -> None:
    images, network = pictures(4), fixed(Noisy(1.0), seed=3)
    before = torch.get_rng_state()
    assert torch.equal(network(images), network(images))
    assert torch.equal(before, torch.get_rng_state())


def test_bpda_sees_through_rounding() -> None:
    images, threat = pictures(100), Threat("linf", 0.1)
    coarse = lambda x: (x * 8).round() / 8  # noqa: E731
    masked = nn.Sequential(Lambda(coarse), linear())
    seen = bpda(coarse, linear())
    labels = predicted(masked, images)
    assert torch.equal(masked(images), seen(images))
    blind = pgd(masked, images, labels, threat, steps=10, start="none")
    assert torch.equal(blind, images)  # rounding has no gradient: the attack does nothing
    through = apgd(seen, images, labels, threat, generator=seeded())
    assert (predicted(masked, through) != labels).float().mean() > 0.6
    doubled = bpda(lambda x: x.detach() * 2, linear(), stand_in=lambda x: 2 * x)
    x = images[:1].clone().requires_grad_()
    doubled(x)[0, 0].backward()
    assert torch.allclose(x.grad.flatten(), 2 * linear()[1].weight[0])


class Lambda(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def test_universal_success_counts_images_of_other_classes() -> None:
    model, images = linear(classes=2), pictures(50)
    labels = predicted(model, images)
    none = torch.zeros(1, 4, 4)
    assert universal_success(model, images, labels, none) == 0
    assert universal_success(model, images, 1 - labels, none) == 1
    assert universal_success(model, images, labels, none, target=1) == 0
    with pytest.raises(ValueError, match="all are of the target class 1"):
        universal_success(model, images, torch.ones_like(labels), none, target=1)
