"""Attacks against torchattacks' of the same name, on an adversarially trained CIFAR-10 ResNet-18 of full width.

Some ten minutes on one core, most of them AutoAttack. Needs the oracle of test_oracles.py and CIFAR-10 in a mirror:
`TURNCOAT_MIRROR=... python -m pytest tests/attacks/test_cifar_oracle.py -m slow -s`.
"""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from turncoat.attacks import Counter, Threat, autoattack, pgd
from turncoat.data.batches import resident
from turncoat.data.fetch import in_mirror
from turncoat.data.prepare import prepare
from turncoat.data.sources import raw_files
from turncoat.models.classifiers import Classifier
from turncoat.settings import DataSettings

from .nets import predicted, seeded

torchattacks = pytest.importorskip("torchattacks", reason="the oracle torchattacks is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
TRAINED, ATTACKED = Threat("linf", 4 / 255), Threat("linf", 16 / 255)  # so that an eighth of the images stand
STEPS, QUERIES = 5, 50  # of AutoAttack's parts; the same in both libraries
Scene = tuple[nn.Module, Tensor, Tensor]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A network trained on 2,000 images by one-step adversarial training, and 200 test images that it gets right."""
    mirror = os.environ.get("TURNCOAT_MIRROR")
    if not mirror or not all(in_mirror(file, "cifar10", Path(mirror)) for file in raw_files("cifar10")):
        pytest.skip("TURNCOAT_MIRROR names no folder with CIFAR-10")
    data = prepare(
        "cifar10", DataSettings(source="cifar10", train=2000, validation=500, test=1500), tmp_path_factory.mktemp("raw")
    )
    torch.manual_seed(0)
    model = Classifier("resnet18", 10, data.shape, data.mean, data.std).to(memory_format=torch.channels_last)
    _train(model, *_tensors(data.train.images, data.train.labels), epochs=3, size=50)
    model.to(memory_format=torch.contiguous_format)  # the oracle's l2 attacks cannot read other gradients
    images, labels = _tensors(data.test.images, data.test.labels)
    right = torch.cat([predicted(model.eval(), batch) for batch in images.split(250)]) == labels
    print(f"\nclean {float(right.float().mean()):.1%} of {len(labels)}")
    return model, images[right][:200], labels[right][:200]


def _tensors(images: object, labels: object) -> tuple[Tensor, Tensor]:
    split = resident(images, labels, "cpu")
    return split.floats(), split.labels


def _train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, size: int) -> None:
    """Fast adversarial training (Wong et al. 2020): one step of 1.25 epsilon from a random start."""
    generator = seeded()
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    rate = torch.optim.lr_scheduler.OneCycleLR(sgd, 0.1, total_steps=epochs * len(images) // size)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(size):
            flipped = torch.rand(len(rows), 1, 1, 1, generator=generator) < 0.5
            batch = torch.where(flipped, images[rows].flip(3), images[rows])
            adversarial = pgd(model, batch, labels[rows], TRAINED, steps=1, relative_step=1.25, generator=generator)
            model.train()
            sgd.zero_grad()
            F.cross_entropy(model(adversarial), labels[rows]).backward()
            sgd.step()
            rate.step()


def test_pgd_follows_the_same_path_from_the_same_start(scene: Scene) -> None:
    model, images, labels = scene[0], scene[1][:32], scene[2][:32]
    for threat in (TRAINED, ATTACKED, Threat("l2", 0.5)):
        ours = pgd(model, images, labels, threat, steps=10, relative_step=0.25, start="none")
        settings = {"eps": threat.epsilon, "alpha": 0.25 * threat.epsilon, "steps": 10, "random_start": False}
        theirs = (torchattacks.PGD if threat.norm == "linf" else torchattacks.PGDL2)(model, **settings)(images, labels)
        same = float(((ours - theirs).abs().amax((1, 2, 3)) < 1e-4).float().mean())
        standing = int((predicted(model, ours) == labels).sum())
        print(f"PGD-10 {threat}: {same:.1%} of the images alike, {standing} of {len(labels)} stand")
        assert torch.equal(predicted(model, ours), predicted(model, theirs))
        # where a gradient is almost 0, its sign is decided by rounding
        assert same >= 0.95


def test_autoattack_finds_no_less_in_no_more_passes(scene: Scene) -> None:
    model, images, labels = scene
    assert len(labels) == 200
    given = {"norm": "Linf", "eps": ATTACKED.epsilon, "seed": 0}

    def theirs(counter: nn.Module) -> Tensor:
        parts = [
            torchattacks.APGD(counter, steps=STEPS, **given),
            torchattacks.APGDT(counter, steps=STEPS, n_classes=10, **given),
            torchattacks.FAB(counter, steps=STEPS, multi_targeted=True, n_classes=10, **given),
            torchattacks.Square(counter, n_queries=QUERIES, **given),
        ]
        return torch.cat([torchattacks.MultiAttack(parts)(x, y) for x, y in _batches(images, labels)])

    def ours(counter: nn.Module) -> Tensor:
        generator = seeded()
        return torch.cat(
            [
                autoattack(counter, x, y, ATTACKED, steps=STEPS, queries=QUERIES, generator=generator)
                for x, y in _batches(images, labels)
            ]
        )

    robust, passes = [], []
    for name, attack in (("ours", ours), ("torchattacks", theirs)):
        counter = Counter(model)
        adversarial = attack(counter)
        assert ATTACKED.distance(adversarial, images).max() <= ATTACKED.epsilon + 1e-6
        robust.append(int((predicted(model, adversarial) == labels).sum()))
        passes.append((counter.forwards / len(labels), counter.backwards / len(labels)))
        print(f"{name}: {robust[-1]} of 200 stand, {passes[-1][0]:.1f} forward, {passes[-1][1]:.1f} backward passes")
    assert 10 <= robust[0] <= 190  # else there is little to compare
    assert robust[0] <= robust[1] + 1
    assert passes[0][0] <= passes[1][0]
    assert passes[0][1] <= passes[1][1]


def _batches(images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(50), labels.split(50), strict=True))
