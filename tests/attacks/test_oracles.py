"""Attacks against other libraries' of the same name, on a small adversarially trained digits network.

Optional: the libraries are no dependency. Install torchattacks and foolbox (without their own torch) into a throw-away
environment that sees this one's packages, and run `python -m pytest tests/attacks/test_oracles.py -m ''`; add `-s` for
the figures.
"""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from turncoat.attacks import Counter, Threat, apgd, apgd_t, autoattack, deepfool, fab_t, pgd, square

from .nets import predicted, seeded

torchattacks = pytest.importorskip("torchattacks", reason="the oracle torchattacks is not installed")
pytestmark = pytest.mark.slow
BUDGETS = [Threat("linf", 0.15), Threat("linf", 0.1), Threat("l2", 0.8)]
NAMES = {"linf": "Linf", "l2": "L2"}


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A network trained on PGD images (about 97 % clean), and 200 test images."""
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    labels = torch.tensor(labels)
    order = torch.randperm(len(labels), generator=seeded())
    images, labels = images[order], labels[order]
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    adam, generator = torch.optim.Adam(model.parameters(), 2e-3), seeded()
    for _ in range(30):
        for rows in torch.randperm(1200, generator=generator).split(100):
            adversarial = pgd(model, images[rows], labels[rows], BUDGETS[0], steps=5, generator=generator)
            adam.zero_grad()
            F.cross_entropy(model(adversarial), labels[rows]).backward()
            adam.step()
    return model.eval(), images[1200:1400], labels[1200:1400]


def measure(name: str, attack: object, digits: tuple[nn.Module, Tensor, Tensor]) -> tuple[int, float, float, Tensor]:
    """Robust images of 200, forward and backward passes an image, and the images themselves."""
    model, images, labels = digits
    counter = Counter(model)
    adversarial = attack(counter)
    robust = int((predicted(model, adversarial) == labels).sum())
    passes = counter.forwards / len(images), counter.backwards / len(images)
    print(f"{name:32s} robust {robust:3d} of 200, forward {passes[0]:7.1f}, backward {passes[1]:7.1f}")
    return robust, *passes, adversarial


@pytest.mark.parametrize("threat", BUDGETS, ids=str)
def test_pgd_follows_the_same_path_from_the_same_start(
    threat: Threat, digits: tuple[nn.Module, Tensor, Tensor]
) -> None:
    model, images, labels = digits
    steps, size = 20, 0.1 * threat.epsilon
    ours = pgd(model, images, labels, threat, steps=steps, relative_step=0.1, start="none")
    settings = {"eps": threat.epsilon, "alpha": size, "steps": steps, "random_start": False}
    theirs = (torchattacks.PGD if threat.norm == "linf" else torchattacks.PGDL2)(model, **settings)(images, labels)
    assert torch.equal(predicted(model, ours), predicted(model, theirs))
    # where a gradient is almost 0, its sign is decided by rounding
    assert ((ours - theirs).abs().amax((1, 2, 3)) < 1e-4).float().mean() >= 0.98


@pytest.mark.parametrize("threat", BUDGETS, ids=str)
def test_autoattack_finds_no_less_in_no_more_passes(threat: Threat, digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Against torchattacks' AutoAttack as it comes (10 steps), and spelled out with the paper's 100 steps."""
    _, images, labels = digits
    settings = {"norm": NAMES[threat.norm], "eps": threat.epsilon, "seed": 0}

    def full(counter: nn.Module) -> Tensor:
        parts = [
            torchattacks.APGD(counter, steps=100, **settings),
            torchattacks.APGDT(counter, steps=100, n_classes=10, **settings),
            torchattacks.FAB(counter, steps=100, multi_targeted=True, n_classes=10, **settings),
            torchattacks.Square(counter, n_queries=5000, **settings),
        ]
        return torchattacks.MultiAttack(parts)(images, labels)

    print()
    ours = measure(
        f"{threat.norm} ours",
        lambda c: autoattack(c, images, labels, threat, generator=seeded()),
        digits,
    )
    theirs = measure(f"{threat.norm} torchattacks, 100 steps", full, digits)
    shipped = measure(
        f"{threat.norm} torchattacks, as shipped",
        lambda c: torchattacks.AutoAttack(c, version="standard", n_classes=10, **settings)(images, labels),
        digits,
    )
    short = measure(
        f"{threat.norm} ours, 10 steps",
        lambda c: autoattack(c, images, labels, threat, steps=10, generator=seeded()),
        digits,
    )
    assert ours[0] <= min(theirs[0], shipped[0]) + 1
    assert short[0] <= shipped[0] + 1
    for mine, other in ((ours, theirs), (short, shipped)):
        assert mine[1] <= other[1]
        assert mine[1] + mine[2] <= other[1] + other[2]
        assert threat.distance(mine[3], images).max() <= threat.epsilon + 1e-6


@pytest.mark.parametrize("threat", [BUDGETS[0], BUDGETS[2]], ids=str)
def test_each_part_finds_as_much(threat: Threat, digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    _, images, labels = digits
    settings = {"norm": NAMES[threat.norm], "eps": threat.epsilon, "seed": 0}
    given = (images, labels, threat)
    pairs = {
        "apgd-ce": (
            lambda c: apgd(c, *given, generator=seeded()), lambda c: torchattacks.APGD(c, steps=100, **settings), 4,
        ),
        "apgd-t": (
            lambda c: apgd_t(c, *given, generator=seeded()),
            lambda c: torchattacks.APGDT(c, steps=100, n_classes=10, **settings), 1,
        ),
        "fab-t": (
            lambda c: fab_t(c, *given),
            lambda c: torchattacks.FAB(c, steps=100, multi_targeted=True, n_classes=10, **settings), 1,
        ),
        "square": (
            lambda c: square(c, *given, queries=1000, generator=seeded()),
            lambda c: torchattacks.Square(c, n_queries=1000, **settings), 0,
        ),
    }  # fmt: skip
    print()
    for name, (ours, theirs, slack) in pairs.items():
        mine = measure(f"{threat.norm} {name} ours", ours, digits)
        other = measure(f"{threat.norm} {name} torchattacks", lambda c: theirs(c)(images, labels), digits)  # noqa: B023
        assert mine[0] <= other[0] + slack, name
        assert mine[1] <= other[1], name


def test_foolbox_deepfool_and_pgd(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    foolbox = pytest.importorskip("foolbox", reason="the oracle foolbox is not installed")
    model, images, labels = digits
    other = foolbox.PyTorchModel(model, bounds=(0, 1))
    for norm, peer in (
        ("l2", foolbox.attacks.L2DeepFoolAttack(steps=50)),
        ("linf", foolbox.attacks.LinfDeepFoolAttack(steps=50)),
    ):
        threat = Threat(norm, 1.0)
        _, theirs, _ = peer(other, images, labels, epsilons=None)
        ours = deepfool(model, images, labels, threat, minimal=True)
        assert (predicted(model, ours) != labels).all()
        medians = [float(threat.distance(found, images).median()) for found in (ours, theirs)]
        print(f"deepfool {norm}: median norm {medians[0]:.4f}, foolbox {medians[1]:.4f}")
        assert medians[0] <= 1.02 * medians[1]
    peer = foolbox.attacks.LinfPGD(abs_stepsize=0.015, steps=20, random_start=False)
    _, theirs, _ = peer(other, images, labels, epsilons=0.15)
    ours = pgd(model, images, labels, BUDGETS[0], steps=20, relative_step=0.1, start="none")
    assert torch.equal(predicted(model, ours), predicted(model, theirs))
