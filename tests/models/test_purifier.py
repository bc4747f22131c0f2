"""Transforms, purifiers and the defended pipeline: shapes, disjoint masks, gradients, attacks on a random network."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from turncoat import models
from turncoat.attacks import Threat, bpda, eot, fixed, input_gradient, kl, pgd
from turncoat.attacks.losses import objective
from turncoat.errors import TurncoatError
from turncoat.models.purifier import PURIFIERS, Discriminator, Pipeline, Purifier
from turncoat.models.transforms import TRANSFORMS, Transform, surrounding_mean

SIZES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 224, 224)]
THREAT = Threat("linf", 0.1)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pipeline(transform: str = "rt2", votes: int = 1, network: str = "unet") -> Pipeline:
    """Small, and with a head that does something: a fresh purifier is nearly the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        purifier = Purifier(network, [1, 8, 8], 4)
        for stage in purifier.stages:
            nn.init.normal_(stage.head.weight, std=0.3)
        classifier = models.Classifier("small_cnn", 3, [1, 8, 8], [0.3], [0.4])
    return Pipeline(Transform(transform), purifier, classifier, votes).eval()


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_masks_hide_a_quarter_in_whole_patches(name, shape):
    images = torch.rand(2, *shape, generator=drawn())
    noisy, masks = Transform(name)(images, drawn(1))
    parts = {"none": 1, "rt1": 1, "rt2": 1, "rt3": 4}[name]
    assert masks.shape == (2, parts, 1, *shape[1:])
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    assert (noisy is images) == (name in ("none", "rt1"))
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    rows = torch.arange(shape[1]) * 8 // shape[1]
    for mask in masks.flatten(0, 1)[:, 0]:
        hidden = {(int(rows[y]), int(rows[x])) for y, x in mask.nonzero().tolist()}
        assert len(hidden) == (0 if name == "none" else 16)
        for row, column in hidden:
            assert mask[rows == row][:, rows == column].all()


def test_the_masks_of_rt3_are_disjoint_and_leave_nothing_out():
    _, masks = Transform("rt3")(torch.rand(5, 1, 28, 28, generator=drawn()), drawn(1))
    assert torch.equal(masks.sum(1), torch.ones(5, 1, 28, 28))


def test_masks_differ_from_image_to_image_unless_they_are_shared():
    images = torch.zeros(6, 1, 8, 8)
    own, shared = Transform("rt1").masks(images, drawn()), Transform("rt1", shared_mask=True).masks(images, drawn())
    assert len(own.flatten(1).unique(dim=0)) == 6
    assert len(shared.flatten(1).unique(dim=0)) == 1


def test_noise_has_the_standard_deviation_asked_for():
    noisy, _ = Transform("rt2", noise=0.05)(torch.full((4, 1, 64, 64), 0.5), drawn())
    assert (noisy - 0.5).std() == pytest.approx(0.05, rel=0.02)


def test_draws_hang_on_the_generator_else_on_the_global_one():
    images, transform = torch.rand(3, 1, 8, 8, generator=drawn()), Transform("rt3")
    state = torch.get_rng_state()
    first, again, other = (transform(images, drawn(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])
    with torch.random.fork_rng():
        torch.manual_seed(7)
        one = transform(images)
        torch.manual_seed(7)
        assert torch.equal(one[0], transform(images)[0])


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"name": "rt4"}, "rt4"),
        ({"name": "rt1", "rate": 0.0}, "rate"),
        ({"name": "rt1", "rate": 1.0}, "rate"),
        ({"name": "rt3", "rate": 0.3}, "1/rate"),
        ({"name": "rt2", "noise": -0.1}, "noise"),
    ],
)
def test_transforms_refuse_what_makes_no_mask(settings, field):
    with pytest.raises(TurncoatError, match=field):
        Transform(**settings)


def test_images_below_the_grid_are_refused():
    with pytest.raises(TurncoatError, match="7 pixels"):
        Transform("rt1").masks(torch.zeros(1, 1, 7, 7))


def test_surrounding_mean_by_hand():
    images = torch.arange(64.0).view(1, 1, 8, 8)
    masks = torch.zeros(1, 1, 8, 8)
    masks[..., 0, 0] = masks[..., 4, 4] = masks[..., 4, 5] = 1
    filled = surrounding_mean(images, masks)
    assert filled[0, 0, 0, 0] == pytest.approx((1 + 8 + 9) / 3)
    around = [27, 28, 29, 35, 43, 44, 45]  # of (4, 4), without its hidden neighbour (4, 5)
    assert filled[0, 0, 4, 4] == pytest.approx(sum(around) / 7)
    assert torch.equal(filled[masks == 0], images[masks == 0])
    masks[..., 3:6, 3:6] = 1
    assert filled.isfinite().all()
    wide = surrounding_mean(images, masks)[0, 0, 4, 4]  # nothing visible next to it: two patches away
    ring = [y * 8 + x for y in range(2, 7) for x in range(2, 7) if not (3 <= y <= 5 and 3 <= x <= 5)]
    assert wide == pytest.approx(sum(ring) / len(ring))


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("network", PURIFIERS)
def test_purifiers_make_images_of_every_size(network, shape):
    purifier = Purifier(network, shape, 4)
    images, masks = Transform("rt1")(torch.rand(2, *shape, generator=drawn()), drawn(1))
    with torch.no_grad():
        made = purifier.outputs(images, masks[:, 0])
    assert made.shape == (2, 2 if network in ("gated", "inpainter") else 1, *shape)
    assert made.min() >= 0
    assert made.max() <= 1
    assert Discriminator(shape, 2)(images).shape[:2] == (2, 1)


@pytest.mark.parametrize("network", PURIFIERS)
def test_a_purifier_does_not_see_what_is_hidden(network):
    purifier, masks = Purifier(network, [1, 8, 8], 4), Transform("rt1").masks(torch.zeros(3, 1, 8, 8), drawn())[:, 0]
    images = torch.rand(3, 1, 8, 8, generator=drawn())
    other = torch.where(masks > 0, torch.rand(3, 1, 8, 8, generator=drawn(2)), images)
    with torch.no_grad():
        assert torch.equal(purifier(images, masks), purifier(other, masks))


def test_rt3_fills_each_patch_from_the_pass_in_which_it_was_hidden():
    net, images = pipeline("rt3"), torch.rand(2, 1, 8, 8, generator=drawn())
    with torch.no_grad():
        purified = net.purify(images, drawn(1))
        noisy, masks = net.transform(images, drawn(1))
        for part in range(4):
            made = net.purifier(noisy, masks[:, part])
            hidden = masks[:, part] > 0
            assert torch.allclose(purified[hidden], made[hidden], atol=1e-6)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_gradient_of_the_whole_pipeline_against_finite_differences(transform):
    net = pipeline(transform).double()
    net.classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    images = torch.rand(2, 1, 8, 8, generator=drawn(3), dtype=torch.float64)
    labels = torch.tensor([0, 2])

    def loss(at: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(net.classifier(net.purify(at, drawn(5))), labels)

    at = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(at), at)
    assert gradient.abs().max() > 1e-4
    step = 1e-6
    for place in range(images.numel()):
        change = torch.zeros(images.numel(), dtype=torch.float64)
        change[place] = step
        change = change.view_as(images)
        with torch.no_grad():
            slope = (loss(images + change) - loss(images - change)) / (2 * step)
        assert float(slope) == pytest.approx(float(gradient.flatten()[place]), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("average", ["loss", "logits"])
def test_eot_with_one_draw_and_fixed_randomness_is_the_plain_attack(average):
    net, labels = pipeline(), torch.tensor([0, 1, 2, 0])
    images = torch.rand(4, 1, 8, 8, generator=drawn())
    plain = pgd(fixed(net, 3), images, labels, THREAT, steps=3, generator=drawn(1))
    assert torch.equal(
        pgd(eot(fixed(net, 3), 1, average=average), images, labels, THREAT, steps=3, generator=drawn(1)), plain
    )
    # a network without randomness, attacked plainly, is the same once more
    still = pipeline("none")
    bare = pgd(still, images, labels, THREAT, steps=3, generator=drawn(1))
    once = eot(still, 1, average=average)
    assert torch.equal(pgd(once, images, labels, THREAT, steps=3, generator=drawn(1)), bare)


class Dealt(nn.Module):
    """A random network whose draws are known: the k-th of each image is scaled by `scales[k]`."""

    scales = (0.5, 4.0, 9.0)

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        nn.init.normal_(self.net[1].weight, 0, 0.3, generator=drawn())

    def forward(self, images):
        if len(images) % len(self.scales):
            raise ValueError("all draws at once wanted")
        each = torch.tensor(self.scales).repeat_interleave(len(images) // len(self.scales))
        return self.net(images) * each[:, None]


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr", "kl", "targeted"])
def test_eot_averages_the_loss_or_the_logits(loss):
    """Against the mean by hand, with what hangs on the row of an image: labels, targets, kl's reference."""
    net, labels, index = Dealt(), torch.tensor([0, 1, 2, 0]), torch.tensor([3, 0, 2, 1])
    images = torch.rand(4, 1, 8, 8, generator=drawn())
    targets = torch.tensor([1, 2, 0, 2]) if loss == "targeted" else None
    reference = torch.rand(4, 3, generator=drawn(2)).log_softmax(1)
    wanted = objective(kl(reference) if loss == "kl" else "ce" if loss == "targeted" else loss)
    given = (labels, targets, index)
    for average in ("loss", "logits"):
        gradient, losses, logits = input_gradient(eot(net, 3, average=average), images, wanted, *given)
        at = images.clone().requires_grad_()
        each = [net.net(at) * scale for scale in net.scales]
        mean = sum(each) / 3
        by_hand = sum(wanted(one, *given) for one in each) / 3 if average == "loss" else wanted(mean, *given)
        (slope,) = torch.autograd.grad(by_hand.sum(), at)
        assert torch.allclose(losses, by_hand.detach(), atol=1e-6)
        assert torch.allclose(gradient, slope, atol=1e-6)
        assert torch.allclose(logits, mean.detach(), atol=1e-6)
    with pytest.raises(ValueError, match="average: 'votes'"):
        eot(net, 3, average="votes")


@pytest.mark.parametrize("average", ["loss", "logits"])
def test_draws_one_after_the_other_have_the_gradient_of_draws_at_once(average):
    noisy = nn.Sequential(nn.Dropout(0.2), Dealt().net).train()
    images, labels, found = torch.rand(4, 64, generator=drawn()), torch.tensor([0, 1, 2, 0]), []
    for at_once in (True, False):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            averaged = eot(noisy, 500, at_once=at_once, average=average)
            gradient, losses, _ = input_gradient(averaged, images, objective("ce"), labels, None, None)
            found.append((gradient, losses))
            assert averaged.each.shape == (500, 4, 3)
    for left, right in zip(*found, strict=True):
        assert functional.cosine_similarity(left.flatten(), right.flatten(), 0) > 0.99  # other draws of one law


def test_attacks_on_the_random_network_repeat_themselves_and_need_no_seed_of_the_caller():
    net, labels = pipeline(), torch.tensor([0, 1, 2, 0])
    images = torch.rand(4, 1, 8, 8, generator=drawn())
    found = []
    for noise in (0, 99):
        with torch.random.fork_rng():
            torch.manual_seed(noise)
            found.append(pgd(eot(net, 3), images, labels, THREAT, steps=2, generator=drawn(1)))
    assert torch.equal(*found)


def test_bpda_takes_the_gradient_at_the_purified_image():
    net, images = pipeline("none"), torch.rand(2, 1, 8, 8, generator=drawn()).requires_grad_()
    (through,) = torch.autograd.grad(bpda(net.purify, net.classifier)(images).square().sum(), images)
    purified = net.purify(images).detach().requires_grad_()
    (behind,) = torch.autograd.grad(net.classifier(purified).square().sum(), purified)
    assert torch.allclose(through, behind, rtol=1e-3, atol=1e-5)


def test_votes_average_probabilities_and_their_gradients_draw_what_the_forward_pass_drew():
    one, many = pipeline(votes=1), pipeline(votes=3)
    images = torch.rand(2, 1, 8, 8, generator=drawn()).requires_grad_()

    def mean_of_three(at: torch.Tensor) -> torch.Tensor:
        return torch.stack([one(at).softmax(1) for _ in range(3)]).mean(0).log()

    results = []
    for network in (many, mean_of_three):
        with torch.random.fork_rng():
            torch.manual_seed(4)
            logits = network(images)
            results.append((logits, *torch.autograd.grad(logits.square().sum(), images)))
    for left, right in zip(*results, strict=True):
        assert torch.allclose(left, right, rtol=1e-4, atol=1e-6)
    with pytest.raises(TurncoatError, match="votes"):
        pipeline(votes=0)


@pytest.mark.parametrize(("transform", "votes"), [("rt1", 1), ("rt2", 3), ("rt3", 2)])
def test_with_seeds_the_draws_of_an_image_hang_on_nothing_beside_it(transform, votes):
    net, images = pipeline(transform, votes), torch.rand(6, 1, 8, 8, generator=drawn())
    state = torch.get_rng_state()
    with torch.no_grad():
        whole = net(images, seeds=range(6))
        parts = torch.cat([net(images[place], seeds=place) for place in ([3, 0], [5], [1, 4, 2])])
        other = net(images, seeds=range(6, 12))
    assert torch.allclose(whole[[3, 0, 5, 1, 4, 2]], parts, atol=1e-5)
    assert not torch.equal(whole, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_shared_mask_is_each_image_s_own_where_draws_are():
    sources = [torch.Generator().manual_seed(seed) for seed in range(6)]
    masks = Transform("rt1", shared_mask=True).masks(torch.zeros(6, 1, 8, 8), sources)
    assert len(masks.flatten(1).unique(dim=0)) == 6


def test_the_classifier_stays_frozen_whatever_the_mode():
    net = pipeline()
    net.train()
    assert net.purifier.training
    assert not any(module.training for module in net.classifier.modules())
    assert not any(parameter.requires_grad for parameter in net.classifier.parameters())


@pytest.mark.parametrize("network", PURIFIERS)
def test_a_weights_file_rebuilds_the_pipeline(tmp_path, network):
    net = pipeline("rt3", votes=2, network=network)
    models.save(tmp_path / "w.safetensors", net)
    loaded = models.load(tmp_path / "w.safetensors")
    assert json.loads(json.dumps(net.spec)) == loaded.spec
    images = torch.rand(2, 1, 8, 8, generator=drawn())
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        logits = net(images)
        torch.manual_seed(0)
        assert torch.equal(loaded(images), logits)


def test_an_unknown_purifier_is_refused():
    with pytest.raises(TurncoatError, match="gated, unet, autoencoder"):
        Purifier("vae", [1, 8, 8])
