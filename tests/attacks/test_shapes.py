"""Images that are no squares, wide and tall, through everything that changes them; turned and blurred rightly."""

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.nets import busy, seeded
from turncoat.attacks import (
    ATTACKS,
    CORRUPTIONS,
    SHIFTS,
    Threat,
    folded,
    perturb,
    transfer,
    universal_deepfool,
    universal_sgd,
)
from turncoat.attacks.spatial import rigid
from turncoat.data.batches import DeviceSplit, augment, batches
from turncoat.models.calibrator import Calibrated
from turncoat.models.classifiers import Classifier
from turncoat.models.purifier import PURIFIERS, Pipeline, Purifier
from turncoat.models.transforms import TRANSFORMS, Transform, surrounding_mean

WIDE, TALL = (3, 48, 64), (3, 64, 48)
BUDGET = {
    "square": {"queries": 40},
    "autoattack": {"steps": 3, "queries": 20},
    "stadv": {"steps": 4},
    "rotate-translate": {"angles": 3, "shifts": 2},
    "deepfool": {"steps": 3},
    "fgsm": {},
}
UNBOUNDED = ("deepfool", "stadv", "rotate-translate")  # these have no ball
DENSE = ("fgsm", "pgd", "apgd", "apgd-t", "square", "autoattack", "stadv", "rotate-translate")  # always move
SHAPED = pytest.mark.parametrize("shape", [WIDE, TALL], ids=["wide", "tall"])


def images(shape: tuple[int, int, int], count: int = 3) -> Tensor:
    return torch.rand(count, *shape, generator=seeded(2))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", ATTACKS)
@SHAPED
def test_attacks(name: str, norm: str, shape: tuple[int, int, int]) -> None:
    net, clean, threat = busy(3), images(shape), Threat(norm, {"linf": 0.1, "l2": 4.0, "l1": 60.0}[norm])
    with torch.no_grad():
        labels = net.eval()(clean).argmax(1)
    settings = BUDGET.get(name, {"steps": 3})
    found = ATTACKS[name](net, clean, labels, threat, generator=seeded(), **settings)
    assert found.shape == clean.shape
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1
    moved = (found - clean).abs().amax((0, 1)) > 0
    if name not in UNBOUNDED:
        assert (threat.distance(found, clean) <= threat.epsilon * (1 + 1e-5)).all()
    if norm == "linf" and name in DENSE:  # it reaches the far sides: no window or grid takes one side for the other
        assert moved[-8:].any()
        assert moved[:, -8:].any()


@pytest.mark.parametrize("make", [universal_deepfool, universal_sgd])
@SHAPED
def test_universal_and_stored_perturbations(make, shape: tuple[int, int, int]) -> None:
    net, clean, threat = busy(3), images(shape, 8), Threat("linf", 0.1)
    change = make(net, clean, torch.arange(8) % 4, threat, passes=2, generator=seeded())
    assert change.shape == shape
    assert change.abs().max() <= 0.1 + 1e-6
    stored = perturb(clean, change)
    labels = torch.arange(8) % 4
    assert torch.equal(transfer(stored)(net, clean, labels, threat), stored)


@pytest.mark.parametrize("name", SHIFTS | CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
@SHAPED
def test_shifts_and_corruptions(name: str, channels: int, shape: tuple[int, int, int]) -> None:
    clean = images((channels, *shape[1:]))
    for severity in (1, 5):
        for change in [of[name] for of in (SHIFTS, CORRUPTIONS) if name in of]:
            changed = change(clean, severity, seeded())
            assert changed.shape == clean.shape
            assert changed.isfinite().all()
            assert changed.min() >= 0
            assert changed.max() <= 1
            assert not torch.equal(changed, clean)


@pytest.mark.parametrize("name", ["defocus_blur", "zoom_blur", "contrast", "brightness"])
def test_what_has_no_direction_commutes_with_exchanging_the_sides(name: str) -> None:
    clean = images(WIDE)
    for severity in range(1, 6):
        there = CORRUPTIONS[name](clean.transpose(2, 3), severity, None).transpose(2, 3)
        assert (there - CORRUPTIONS[name](clean, severity, None)).abs().max() < 1e-5


@SHAPED
@pytest.mark.parametrize("degrees", [-90, -30, 15, 90])
def test_a_rotation_keeps_distances_from_the_middle(degrees: float, shape: tuple[int, int, int]) -> None:
    rows, columns = torch.meshgrid(*(torch.arange(side) - (side - 1) / 2 for side in shape[1:]), indexing="ij")
    spot = torch.exp(-((rows - 4) ** 2 + (columns - 14) ** 2) / 8)
    turned = rigid(spot[None, None], degrees, 0, 0)[0, 0]
    row, column = (float((turned * places).sum() / turned.sum()) for places in (rows, columns))
    assert (row**2 + column**2) ** 0.5 == pytest.approx((4**2 + 14**2) ** 0.5, abs=0.1)
    shifted = rigid(spot[None, None], 0, 3, -5)[0, 0]
    assert float((shifted * columns).sum() / shifted.sum()) == pytest.approx(17, abs=0.1)
    assert float((shifted * rows).sum() / shifted.sum()) == pytest.approx(-1, abs=0.1)


@SHAPED
def test_crops_and_mirror_images(shape: tuple[int, int, int]) -> None:
    _, height, width = shape
    whole = torch.arange(3 * height * width, dtype=torch.int32).add(1).view(1, *shape).repeat(64, 1, 1, 1)
    made = augment(whole, 4, True, seeded())
    assert made.shape == whole.shape
    padded = nn.functional.pad(whole[0], (4, 4, 4, 4))
    every = [padded[:, y : y + height, x : x + width] for y in range(9) for x in range(9)]
    known = {crop.numpy().tobytes() for crop in every} | {crop.flip(2).numpy().tobytes() for crop in every}
    assert all(one.contiguous().numpy().tobytes() in known for one in made)
    assert len({one.contiguous().numpy().tobytes() for one in made}) > 30
    split = DeviceSplit(torch.randint(0, 256, (10, *shape), dtype=torch.uint8), torch.arange(10) % 2)
    (batch,) = batches(split, 10, 4, True, 0, 0)
    assert batch.images.shape == (10, *shape)


@pytest.mark.parametrize("name", TRANSFORMS)
@SHAPED
def test_transforms_hide_patches_in_the_shape_of_the_image(name: str, shape: tuple[int, int, int]) -> None:
    noisy, masks = Transform(name)(images(shape), seeded())
    assert noisy.shape == (3, *shape)
    assert masks.shape[2:] == (1, *shape[1:])
    patches = masks.unflatten(4, (8, -1)).unflatten(3, (8, -1))  # an eighth of each side
    assert torch.equal(patches.amax((4, 6)), patches.amin((4, 6)))
    mask = masks[:, 0]
    assert surrounding_mean(noisy, mask).shape == (3, *shape)


@pytest.mark.parametrize("network", PURIFIERS)
@SHAPED
def test_purifiers_and_the_pipeline(network: str, shape: tuple[int, int, int]) -> None:
    classifier = Classifier("small_cnn", 4, shape, (0.5,) * 3, (0.25,) * 3).eval()
    pipeline = Pipeline(Transform("rt2"), Purifier(network, shape, 4), classifier).eval()
    clean = images(shape)
    assert pipeline(clean).shape == (3, 4)
    found = ATTACKS["pgd"](pipeline, clean, torch.tensor([0, 1, 2]), Threat("linf", 0.1), steps=2, generator=seeded())
    assert 0 < (found - clean).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize("attention", [False, True])
@SHAPED
def test_calibrators(attention: bool, shape: tuple[int, int, int]) -> None:
    classifier = Classifier("small_cnn", 4, shape, (0.5,) * 3, (0.25,) * 3).eval()
    calibrated = Calibrated(classifier, 0.1, attention=attention)
    nn.init.normal_(calibrated.generator.weight, generator=seeded())
    assert calibrated.calibrate(images(shape)).shape == (3, *shape)
    assert calibrated(images(shape)).shape == (3, 4)


@pytest.mark.parametrize("model", ["small_cnn", "resnet18", "mobilenet_v2", "vgg16"])
@SHAPED
def test_networks_and_their_folded_copies(model: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    network = Classifier(model, 4, shape, (0.5,) * 3, (0.25,) * 3).eval()
    clean = images(shape)
    with torch.no_grad():
        plain, fast = network(clean), folded(network, clean)(clean)
    assert plain.shape == (3, 4)
    assert (plain - fast).abs().max() <= 1e-4 * plain.abs().max()
