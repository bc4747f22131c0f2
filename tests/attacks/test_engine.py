"""What the attacks share: a model held still, gradients for the input only, counted passes, who has fallen."""

import pytest
import torch
from torch import Tensor, nn

from turncoat.attacks import (
    Counter,
    Threat,
    apgd,
    apgd_t,
    attacked,
    autoattack,
    eot,
    fab_t,
    fgsm,
    input_gradient,
    pgd,
    square,
)
from turncoat.attacks.board import Board
from turncoat.attacks.folded import folded
from turncoat.attacks.losses import ce, dlr, margin, objective, targeted_dlr
from turncoat.attacks.square import window_side
from turncoat.models.classifiers import Classifier

from .nets import busy, linear, pictures, predicted, seeded

LINF = Threat("linf", 0.1)


class Robust(nn.Module):
    """Always says 0, and has a gradient."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.flatten(1).mean(1)
        return torch.stack([100 + mean, *[mean * k for k in range(2, 11)]], 1)


def counted(attack: object, count: int = 4, **settings: object) -> tuple[float, float]:
    """Forward and backward passes an image on a network that no attack can turn."""
    model, images = Counter(Robust()), pictures(count)
    attack(model, images, torch.zeros(count, dtype=torch.int64), LINF, generator=seeded(), **settings)
    return model.forwards / count, model.backwards / count


def test_an_attack_costs_what_its_docstring_says() -> None:
    assert counted(fgsm) == (1, 1)
    assert counted(pgd, steps=10) == (10, 10)
    assert counted(pgd, steps=10, early_stop=True, restarts=2) == (22, 20)
    assert counted(apgd, steps=20) == (21, 20)
    assert counted(apgd_t, steps=20, clean_logits=torch.zeros(4, 10)) == (9 * 21, 9 * 20)
    assert counted(fab_t, steps=20, clean_logits=torch.zeros(4, 10)) == (9 * 21, 9 * 20)
    assert counted(square, queries=50) == (50, 0)
    # one clean pass for all, and one to see who fell to each of the four
    assert counted(autoattack, steps=20, queries=50) == (1 + 21 + 9 * 21 + 9 * 21 + 50 + 4, 20 + 9 * 20 + 9 * 20)


def test_fallen_images_cost_no_more() -> None:
    model, images = Counter(linear()), pictures(50)
    wrong = (predicted(model.model, images) + 1) % 4
    for attack in (apgd, apgd_t, square):
        model.forwards = model.backwards = 0
        attack(model, images, wrong, LINF, generator=seeded())
        assert model.forwards <= 3 * 50
    model.forwards = 0
    assert torch.equal(autoattack(model, images, wrong, LINF, generator=seeded()), images)
    assert model.forwards == 50


def test_train_mode_uses_batch_statistics_and_updates_none() -> None:
    model, images, labels = busy(), pictures(8, 6), torch.arange(8) % 4
    before = {name: value.clone() for name, value in model.state_dict().items()}
    results = {}
    for mode in ("eval", "train"):
        modes = []
        hook = model[1].register_forward_hook(lambda module, *_: modes.append(module.training))  # noqa: B023
        results[mode] = pgd(model, images, labels, LINF, steps=3, start="none", mode=mode)
        hook.remove()
        assert set(modes) == {mode == "train"}
    assert not torch.equal(results["eval"], results["train"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    model(images)  # and afterwards they are updated again
    assert not torch.equal(before["1.running_mean"], model[1].running_mean)


@pytest.mark.fault(12, "a network that raises in the middle of an attack", "its mode and gradient flags are restored")
def test_a_failing_network_is_restored() -> None:
    model = busy()

    def fail() -> None:
        with attacked(model):
            assert not any(parameter.requires_grad for parameter in model.parameters())
            assert not any(module.training for module in model.modules())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert all(module.training for module in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False, True, True, True, True]


def test_parameters_get_no_gradient_and_random_networks_another_stream() -> None:
    model, images = busy(), pictures(3, 6)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with attacked(model, "train", seeded()):
        drawn = torch.rand(2)
        gradient, losses, logits = input_gradient(model, images, ce, torch.zeros(3, dtype=torch.int64))
    assert gradient.shape == images.shape
    assert gradient.abs().sum() > 0
    assert not losses.requires_grad
    assert not logits.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not torch.equal(drawn, expected)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("early_stop", [False, True])
def test_reduced_precision_by_autocast_keeps_images_and_verdicts_in_float32(early_stop: bool) -> None:
    model, images = linear(), pictures(200)
    labels = predicted(model, images)
    threat = Threat("linf", 0.03)
    settings = {"steps": 10, "early_stop": early_stop, "generator": seeded()}
    exact = (predicted(model, pgd(model, images, labels, threat, **settings)) != labels).sum()
    with torch.autocast("cpu", torch.bfloat16):
        adversarial = pgd(model, images, labels, threat, **(settings | {"generator": seeded()}))
    assert adversarial.dtype == torch.float32
    assert (threat.distance(adversarial, images) <= 0.03 + 1e-6).all()
    assert abs(int((predicted(model, adversarial) != labels).sum()) - int(exact)) <= 3


class Rough(nn.Module):
    """Turned by half of all images under autocast, by none in float32."""

    def forward(self, images: Tensor) -> Tensor:
        lied = torch.is_autocast_enabled("cpu") and torch.arange(len(images)) % 2 == 1
        mean = images.flatten(1).mean(1)
        return torch.stack([torch.full_like(mean, 10.0), mean + 20 * torch.as_tensor(lied)], 1)


def test_nobody_falls_on_reduced_precision_alone() -> None:
    images, labels = pictures(6), torch.zeros(6, dtype=torch.int64)
    for attack in (lambda **k: pgd(*k["given"], steps=3, early_stop=True, generator=seeded()),
                   lambda **k: apgd(*k["given"], steps=5, generator=seeded()),
                   lambda **k: fab_t(*k["given"], steps=5),
                   lambda **k: square(*k["given"], queries=9, generator=seeded())):  # fmt: skip
        model = Counter(Rough())
        with torch.autocast("cpu", torch.bfloat16):
            adversarial = attack(given=(model, images, labels, LINF))
        assert (LINF.distance(adversarial, images) <= 0.1 + 1e-6).all()
        assert model.forwards > 3 * 6  # all six were attacked to the end


def test_float16_gradients_are_scaled_and_scaled_back() -> None:
    model, images = linear().half(), pictures(3)
    tiny = lambda logits, labels: 1e-5 * ce(logits, labels)  # noqa: E731 - vanishes in float16 unless scaled
    labels = torch.zeros(3, dtype=torch.int64)
    half, _, _ = input_gradient(nn.Sequential(nn.Flatten(), Half(model)), images, tiny, labels)
    full, _, _ = input_gradient(linear(), images, tiny, labels)
    assert torch.allclose(half, full, rtol=0.02, atol=1e-8)


class Half(nn.Module):
    """A float16 network that takes float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.half())


def test_channels_last_images_give_the_same_result() -> None:
    model, images, labels = busy(3).eval(), pictures(4, 8, 3), torch.arange(4)
    last = images.to(memory_format=torch.channels_last)
    one, other = (pgd(model, x, labels, LINF, steps=3, generator=seeded()) for x in (images, last))
    assert other.is_contiguous(memory_format=torch.channels_last)
    assert (one - other).abs().mean() < 1e-3


def test_items_come_in_full_batches_and_leave_with_their_image() -> None:
    board = Board(linear(), pictures(5), torch.zeros(5, dtype=torch.int64))
    classes = torch.tensor([[1, 2]] * 5)
    batches = board.batches(classes, 4)
    index, targets = next(batches)
    assert index.tolist() == [0, 1, 2, 3]
    assert targets.tolist() == [1, 1, 1, 1]
    fell = torch.tensor([True, False, True, False])
    assert board.record(index, board.images[index], torch.zeros(4), fell).tolist() == [False, True, False, True]
    index, targets = next(batches)  # 0 and 2 are gone with both their classes
    assert index.tolist() == [4, 1, 3, 4]
    assert targets.tolist() == [1, 2, 2, 2]
    assert list(batches) == []


def test_of_several_candidates_for_an_image_the_best_is_kept() -> None:
    board = Board(linear(), torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64))
    candidates = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 4, 4) / 10
    index, losses = torch.tensor([0, 1, 0, 1, 1]), torch.tensor([1.0, 5.0, 3.0, torch.nan, -2.0])
    board.record(index, candidates, losses, torch.tensor([False] * 5))
    assert board.adversarial[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.1])
    board.record(index, candidates, losses, torch.tensor([False, False, False, False, True]))
    assert board.adversarial[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.4])
    board.record(index, candidates, losses + 100, torch.tensor([False] * 5))  # who has fallen stays so
    assert board.adversarial[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.4])
    assert board.down.tolist() == [False, True]


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.05), ("l2", 0.2), ("l1", 0.5)])
def test_a_standing_image_comes_back_as_its_iterate_of_highest_loss(norm: str, epsilon: float) -> None:
    """Also when others leave the batch on the way, which has everyone's state written down."""
    model, images = linear(), pictures(40)
    labels, highest = predicted(model, images), torch.full((40,), -torch.inf)

    def watched(logits: Tensor, labels: Tensor, index: Tensor | None) -> Tensor:
        losses = ce(logits, labels)
        if inside:
            highest[:] = highest.scatter_reduce(0, index, losses.detach(), "amax")
        return losses

    inside = norm != "l1"  # which starts in larger balls, whose iterates do not count
    found = apgd(model, images, labels, Threat(norm, epsilon), steps=20, loss=watched, generator=seeded())
    stands = predicted(model, found) == labels
    assert 5 < int(stands.sum()) < 35
    reached, start = ce(model(found), labels), ce(model(images), labels)
    if inside:
        assert torch.allclose(reached[stands], highest[stands], rtol=1e-5)
    assert bool((reached > start)[stands].all())


@pytest.mark.parametrize("attack", ["apgd", "pgd", "square"])
def test_an_image_leaves_a_mean_of_draws_once_it_has_fallen_in_each(attack: str) -> None:
    """A network that errs in every second draw, whatever the image: no draw's luck may end the search."""

    class Fickle(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            half = len(images) // 2
            wrong = torch.arange(len(images)) < (len(images) if sure else half)
            right = images.flatten(1).mean(1) * 0 + 1
            return torch.stack([torch.where(wrong, -3 * right, right), 0 * right, 0 * right], 1)

    settings = {"apgd": {"steps": 6}, "pgd": {"steps": 6, "early_stop": True}, "square": {"queries": 6}}[attack]
    run = {"apgd": apgd, "pgd": pgd, "square": square}[attack]
    passes = {}
    for sure in (False, True):
        counter = Counter(Fickle())
        run(eot(counter, 2), pictures(3), torch.zeros(3, dtype=torch.int64), LINF, generator=seeded(), **settings)
        passes[sure] = counter.forwards
    assert passes[True] <= 2 * 3 * 2
    assert passes[False] >= 2 * 3 * 6


def test_losses() -> None:
    logits, labels = torch.tensor([[3.0, 1.0, 0.5, -1.0], [0.0, 2.0, 1.0, 5.0]]), torch.tensor([0, 1])
    assert margin(logits, labels).tolist() == [-2.0, 3.0]
    assert dlr(logits, labels).tolist() == pytest.approx([-2 / 2.5, 3 / 4])
    assert torch.allclose(dlr(7 * logits + 3, labels), dlr(logits, labels))
    targets = torch.tensor([2, 3])
    assert targeted_dlr(logits, labels, targets).tolist() == pytest.approx([-2.5 / 3.25, 3 / 4.5])
    # too few classes for the ratio: the plain margins
    assert torch.equal(dlr(logits[:, :2], labels), margin(logits[:, :2], labels))
    assert targeted_dlr(logits[:, :3], labels, torch.tensor([2, 2])).tolist() == [-2.5, -1.0]
    assert objective("ce")(logits, labels, targets, None).tolist() == (-ce(logits, targets)).tolist()
    assert ce(torch.tensor([[1e4, 0.0]]).bfloat16(), torch.tensor([0])).item() == 0


def test_square_windows_shrink_by_the_schedule() -> None:
    sides = [window_side(0.8, query, 5000, torch.Size([1, 3, 32, 32])) for query in (0, 6, 30, 120, 300, 600, 4900)]
    assert sides == [29, 20, 14, 10, 7, 5, 1]
    assert window_side(1.0, 0, 10, torch.Size([1, 1, 1, 1])) == 1


def test_progress_tells_what_is_left() -> None:
    told: list[tuple[int, int]] = []
    model, images = linear(), pictures(10)
    apgd(model, images, predicted(model, images), LINF, steps=5, restarts=2, batch_size=4, generator=seeded(),
         progress=lambda left, standing: told.append((left, standing)))  # fmt: skip
    assert told[0] == (10, 10)
    assert told[-1][0] == 0
    assert [standing for _, standing in told] == sorted((standing for _, standing in told), reverse=True)


class Chance(nn.Module):
    """Random, in a way that a trace would freeze."""

    def __init__(self) -> None:
        super().__init__()
        self.net = busy()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) + torch.randn(1)


class Choice(nn.Module):
    """Control flow that cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.net = busy()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) if images.sum() > 0 else self.net(-images)


@pytest.mark.parametrize(("make", "folds"), [(busy, True), (Chance, False), (Choice, False)])
def test_folding_keeps_what_a_network_computes(make: type[nn.Module], folds: bool) -> None:
    model, images = make(), pictures(5, 6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    global_state = torch.get_rng_state()
    ready = folded(model, images)
    assert torch.equal(global_state, torch.get_rng_state())
    assert any(isinstance(module, nn.BatchNorm2d) for module in ready.modules()) != folds
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    with torch.no_grad():
        torch.manual_seed(1)
        wanted = model.eval()(images[:2])
        torch.manual_seed(1)
        assert torch.allclose(ready(images[:2]), wanted, atol=1e-4)
        assert make is not Chance or not torch.equal(ready(images[:2]), wanted)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folded_networks_gradients_lie_in_memory_as_its_activations(channels: int) -> None:
    """A ReLU whose output and gradient lie in different orders takes ten times as long backwards."""
    images = pictures(5, 8, channels).requires_grad_()
    ready = folded(Classifier("small_cnn", 4, images.shape[1:], [0.5] * channels, [0.5] * channels), images)
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def watch(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        out.register_hook(lambda gradient: seen.append((out.stride(), gradient.stride())))

    for module in ready.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(watch)
    torch.autograd.grad(ready(images).sum(), images)
    assert len(seen) == 3
    assert all(activation == gradient for activation, gradient in seen)
