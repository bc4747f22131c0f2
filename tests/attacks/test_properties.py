"""What holds for every attack, whatever the network, the images and the settings (Hypothesis)."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from turncoat.attacks import (
    ATTACKS,
    Threat,
    apgd,
    apgd_t,
    autoattack,
    deepfool,
    eot,
    fab,
    fab_t,
    fgsm,
    kl,
    momentum,
    perturb,
    pgd,
    rotate_translate,
    square,
    stadv,
    transfer,
    universal_deepfool,
    universal_sgd,
)  # fmt: skip
from turncoat.attacks.losses import ce, dlr, margin
from turncoat.attacks.pgd import begin

from .nets import busy, pictures, seeded

BOUNDED: dict[str, Callable[..., Tensor]] = {
    "fgsm": lambda *a, **k: fgsm(*a, **k),
    "fgsm-uniform": lambda *a, **k: fgsm(*a, start="uniform", relative_step=1.25, **k),
    "pgd": lambda *a, **k: pgd(*a, steps=3, **k),
    "pgd-train": lambda *a, **k: pgd(*a, steps=3, mode="train", start="gaussian", **k),
    "pgd-stop": lambda *a, **k: pgd(*a, steps=3, restarts=2, loss="dlr", early_stop=True, **k),
    "pgd-eot": lambda model, *a, **k: pgd(eot(model, 2), *a, steps=2, mode="train", **k),
    "momentum": lambda *a, **k: momentum(*a, steps=3, **k),
    "apgd": lambda *a, **k: apgd(*a, steps=8, restarts=2, **k),
    "apgd-t": lambda *a, **k: apgd_t(*a, steps=5, **({"batch_size": 3} | k)),
    "fab": lambda *a, **k: fab(*a, steps=4, restarts=2, **k),
    "fab-t": lambda *a, **k: fab_t(*a, steps=4, **({"batch_size": 4} | k)),
    "square": lambda *a, **k: square(*a, queries=12, **k),
    "autoattack": lambda *a, **k: autoattack(*a, steps=3, queries=5, **k),
    "autoattack-plus": lambda *a, **k: autoattack(*a, version="plus", steps=2, queries=3, **k),
    "autoattack-rand": lambda *a, **k: autoattack(*a, version="rand", steps=2, **k),
    "deepfool": lambda *a, **k: deepfool(*a, steps=4, **k),
    "transfer": lambda model, x, y, threat, **k: transfer((x * 0.5 * 255).to(torch.uint8))(model, x, y, threat, **k),
    "universal-deepfool": lambda m, x, *a, **k: perturb(x, universal_deepfool(m, x, *a, passes=2, steps=3, **k)),
    "universal-sgd": lambda m, x, *a, **k: perturb(x, universal_sgd(m, x, *a, passes=2, **k)),
}
SIZED = {name for name in BOUNDED if name.startswith(("apgd", "fab", "square", "autoattack", "universal"))}
MOVING: dict[str, Callable[..., Tensor]] = {
    "stadv": lambda *a, **k: stadv(*a, steps=3, **k),
    "rotate-translate": lambda *a, **k: rotate_translate(*a, angles=3, shifts=2, **k),
}
THREATS = st.one_of(
    st.builds(Threat, st.just("linf"), st.floats(1e-3, 1.0)),
    st.builds(Threat, st.just("l2"), st.floats(1e-3, 5.0)),
    st.builds(Threat, st.just("l1"), st.floats(1e-2, 30.0)),
)
SCENES = st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(5, 9), st.integers(0, 10**6))
few = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def scene(drawn: tuple[int, int, int, int]) -> tuple[nn.Module, Tensor, Tensor]:
    count, channels, side, seed = drawn
    images = pictures(count, side, channels, seed)
    if seed % 2:  # the corners and edges of the box
        images = (images * 3 - 1).clamp(0, 1)
    return busy(channels), images, torch.randint(4, (count,), generator=seeded(seed))


def state(model: nn.Module) -> list[object]:
    """All of a network that an attack might leave changed."""
    grads = [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    modes = [(module.training, getattr(module, "track_running_stats", None)) for module in model.modules()]
    return [grads, flags, modes, copy.deepcopy(model.state_dict()), torch.get_rng_state()]


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


@pytest.mark.fault(11, "each attack, on networks, threats and sizes of Hypothesis", "in ball and box to 1e-6")
@pytest.mark.fault(12, "each attack, on networks, threats and sizes of Hypothesis", "mode, gradients, inputs untouched")
@pytest.mark.parametrize("name", BOUNDED | MOVING)
@few
@given(drawn=SCENES, threat=THREATS, seed=st.integers(0, 1000))
def test_inside_no_side_effects_same_again(
    name: str, drawn: tuple[int, int, int, int], threat: Threat, seed: int
) -> None:
    model, images, labels = scene(drawn)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    attack = (BOUNDED | MOVING)[name]
    kept, before = (images.clone(), labels.clone()), state(model)

    adversarial = attack(model, images, labels, threat, generator=seeded(seed))

    assert same(before, state(model))
    assert same(kept, (images, labels))
    assert adversarial.shape == images.shape
    assert adversarial.dtype == torch.float32
    assert not adversarial.requires_grad
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    if name in BOUNDED:
        exact = threat.distance(adversarial.double(), images.double())
        assert (exact <= threat.epsilon + 1e-6).all()
    torch.rand(3)  # what the global generator did in between must not matter
    assert torch.equal(adversarial, attack(model, images, labels, threat, generator=seeded(seed)))


@pytest.mark.parametrize("target", [None, 0])
@pytest.mark.parametrize("make", [universal_deepfool, universal_sgd])
@few
@given(drawn=SCENES, threat=THREATS, seed=st.integers(0, 1000), size=st.integers(1, 6))
def test_a_universal_perturbation_lies_in_the_ball_itself(
    make: Callable[..., Tensor],
    target: int | None,
    drawn: tuple[int, int, int, int],
    threat: Threat,
    seed: int,
    size: int,
) -> None:
    model, images, labels = scene(drawn)
    labels[0] = 1  # one image of another class than the target
    change = make(model, images, labels, threat, target=target, passes=2, batch_size=size, generator=seeded(seed))
    assert change.shape == images.shape[1:]
    assert change.isfinite().all()
    assert threat.distance(change[None].double(), torch.zeros_like(change[None]).double()) <= threat.epsilon + 1e-6


# the attack, and an iterate that it has looked at: what it gives back has fallen or is no worse by the attack's loss
KEEP_THE_BEST: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "pgd": (lambda *a, **k: pgd(*a, steps=3, early_stop=True, **k), lambda *a, **k: drawn_start(*a, **k)),
    "pgd-none": (lambda *a, **k: pgd(*a, steps=3, start="none", early_stop=True, **k), lambda m, x, *a, **k: x),
    "pgd-restarts": (
        lambda *a, **k: pgd(*a, steps=2, restarts=3, early_stop=True, **k),
        lambda *a, **k: drawn_start(*a, **k),
    ),
    "apgd": (lambda *a, **k: apgd(*a, steps=6, restarts=2, **k), lambda *a, **k: drawn_start(*a, **k)),
    "square": (lambda *a, **k: square(*a, queries=12, **k), lambda *a, **k: square(*a, queries=1, **k)),
    # no loss to choose: the margin, or for FAB the image itself unless one within epsilon was found
    "fab": (lambda *a, loss, **k: fab(*a, steps=4, **k), lambda m, x, *a, **k: x),
    "fab-t": (lambda *a, loss, **k: fab_t(*a, steps=4, **k), lambda m, x, *a, **k: x),
    "stadv": (lambda *a, loss, **k: stadv(*a, steps=3, **k), lambda m, x, *a, **k: x),
    "rotate-translate": (
        lambda *a, loss, **k: rotate_translate(*a, angles=3, shifts=3, **k),
        lambda m, x, *a, **k: x,
    ),
}
# Of the others: FGSM, PGD without early stop, DeepFool and the universal perturbations end with their last iterate,
# transfer looks at none; APGD-T's loss is another for each class it tries; AutoAttack is of parts that stand here, what
# EOT keeps is best by the mean of draws that are gone.


def drawn_start(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, **given: object) -> Tensor:
    return threat.project(begin(images, threat, "uniform", given["generator"]), images)


@pytest.mark.parametrize("name", KEEP_THE_BEST)
@few
@given(drawn=SCENES, threat=THREATS, seed=st.integers(0, 1000), loss=st.sampled_from(["ce", "margin", "dlr"]))
def test_the_best_iterate_is_never_worse_than_the_start(
    name: str, drawn: tuple[int, int, int, int], threat: Threat, seed: int, loss: str
) -> None:
    if name == "apgd" and threat.norm == "l1":  # there the search starts in a larger ball
        return
    model, images, labels = scene(drawn)
    model.eval()
    attack, start = KEEP_THE_BEST[name]
    score = {"ce": ce, "margin": margin, "dlr": dlr}["margin" if name in MOVING else loss]
    adversarial = attack(model, images, labels, threat, loss=loss, generator=seeded(seed))
    first = start(model, images, labels, threat, loss=loss, generator=seeded(seed))
    with torch.no_grad():
        logits = model(adversarial)
        better = score(logits, labels) >= score(model(first), labels) - (1e-4 if name in MOVING else 1e-5)
    assert (better | (logits.argmax(1) != labels)).all()


@pytest.mark.parametrize("name", BOUNDED | MOVING)
@few
@given(drawn=SCENES, threat=THREATS)
def test_any_batch_size_gives_images_of_the_same_kind(
    name: str, drawn: tuple[int, int, int, int], threat: Threat
) -> None:
    """By the setting, where there is one (`SIZED`), else by as many images at a time."""
    model, images, labels = scene(drawn)
    attack = (BOUNDED | MOVING)[name]
    for size in (1, 2, 100):
        if name in SIZED:
            adversarial = attack(model, images, labels, threat, batch_size=size, generator=seeded())
        else:
            batches = zip(images.split(size), labels.split(size), strict=True)
            adversarial = torch.cat([attack(model, *batch, threat, generator=seeded()) for batch in batches])
        assert adversarial.shape == images.shape
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1
        if name in BOUNDED:
            assert (threat.distance(adversarial.double(), images.double()) <= threat.epsilon + 1e-6).all()


class Broken(nn.Module):
    """Gradients are NaN everywhere, although the logits are fine."""

    def __init__(self) -> None:
        super().__init__()
        self.net = busy().eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) + 0 * torch.sqrt((images * 0).sum((1, 2, 3)))[:, None]


class Blocked(nn.Module):
    """No gradient at all reaches the images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = busy().eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images.detach() * 8).round() / 8)


class Speechless(nn.Module):
    """NaN logits."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :4] * torch.nan


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("network", [Broken, Blocked, Speechless])
@pytest.mark.parametrize("name", sorted(BOUNDED))
@pytest.mark.fault(9, "every attack on networks with NaN or zero gradients", "no crash, images inside the threat")
def test_useless_gradients_neither_crash_nor_leave_the_threat(name: str, network: type[nn.Module], norm: str) -> None:
    images, threat = pictures(3, 6), Threat(norm, 0.5)
    labels = torch.tensor([0, 1, 2])
    adversarial = BOUNDED[name](network(), images, labels, threat, generator=seeded())
    assert adversarial.isfinite().all()
    assert (threat.distance(adversarial.double(), images.double()) <= 0.5 + 1e-6).all()


def test_every_named_attack_is_tested_here() -> None:
    assert set(ATTACKS) <= set(BOUNDED | MOVING)


@few
@given(drawn=SCENES, threat=THREATS, factor=st.floats(0.01, 30), seed=st.integers(0, 1000))
def test_projection_and_random_start(
    drawn: tuple[int, int, int, int], threat: Threat, factor: float, seed: int
) -> None:
    _, images, _ = scene(drawn)
    far = images + factor * torch.randn(images.shape, generator=seeded(seed))
    near = threat.project(far, images)
    for inside in (near, threat.random_start(images, seeded(seed))):
        assert (threat.distance(inside.double(), images.double()) <= threat.epsilon + 1e-6).all()
        assert inside.min() >= 0
        assert inside.max() <= 1
        assert torch.allclose(threat.project(inside, images), inside, atol=2e-6 * max(1.0, threat.epsilon))
    last = images.to(memory_format=torch.channels_last)
    assert torch.equal(threat.random_start(last, seeded(seed)), threat.random_start(images, seeded(seed)))


def test_trades_inner_maximisation_is_one_line() -> None:
    model, images, labels = scene((4, 1, 6, 2))
    model.eval()
    threat = Threat("linf", 0.1)
    with torch.no_grad():
        clean = model(images).log_softmax(1)
    adversarial = pgd(model, images, labels, threat, steps=5, start="gaussian", loss=kl(clean), generator=seeded())
    with torch.no_grad():
        gained = kl(clean)(model(adversarial), labels, None)
        noise = kl(clean)(model(threat.random_start(images, seeded())), labels, None)
    assert (gained > 3 * noise).all()
