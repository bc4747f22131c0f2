"""AdvAmd on masks and boxes: its switches off it is plain training, its attack ascends the whole loss, its weights."""

import pytest
import torch

from tests.dense.small import TASKS, THREAT, batch_of, method, network, scenes, split_of
from turncoat.attacks import ascent
from turncoat.models.dual_norm import extract
from turncoat.randomness import generator
from turncoat.settings import ComputeSettings, TrainingSettings
from turncoat.training import fit, resolve
from turncoat.training.dense_validation import dense_validator

SCHEDULE = TrainingSettings(epochs=2, batch_size=8, lr=0.05, crop=3, flip=True, validate_every=2)
ATTACK = {"steps": 3, "radius": 0.5, "relative_step": 0.2}


def trained(task, name, **settings):
    made = method(name, network(task), task, **settings)
    compute = resolve(ComputeSettings(device="cpu"))
    validate = dense_validator(split_of(task, "validation"), THREAT, 0, len(scenes(task).classes), steps=2)
    return fit(made, split_of(task), SCHEDULE, compute, seed=0, validate=validate)


@pytest.mark.parametrize("task", TASKS)
def test_with_its_switches_off_it_is_plain_training_to_the_byte(task):
    plain = trained(task, "standard")
    off = {"mediates": [], "a": 0.0, "perturbation": "noise", "batch_norm": "full", "weighting": "uniform"}
    ours = trained(task, "advamd", attack={"radius": 0.0}, **off)
    assert plain.history[-1]["validation_clean"] == ours.history[-1]["validation_clean"]
    assert plain.last.keys() == ours.last.keys()
    assert all(torch.equal(plain.last[name], ours.last[name]) for name in plain.last)


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(task):
    first, second = trained(task, "advamd"), trained(task, "advamd")
    assert all(torch.equal(first.last[name], second.last[name]) for name in first.last)
    assert first.passes["forward"] / first.passes["images"] == pytest.approx(8)
    assert first.passes["backward"] / first.passes["images"] == pytest.approx(8)


@pytest.mark.parametrize("task", TASKS)
def test_the_attack_ascends_the_networks_whole_loss_within_the_radius(task):
    net, batch = network(task).eval(), batch_of(task)
    found = ascent(net, batch.images, batch.labels, THREAT, steps=10, generator=generator(0, "a"))
    again = ascent(net, batch.images, batch.labels, THREAT, steps=10, generator=generator(0, "a"))
    assert torch.equal(found, again)
    assert float((found - batch.images).abs().max()) <= THREAT.epsilon + 1e-6
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    best = ascent(net, batch.images, batch.labels, THREAT, steps=10, generator=generator(0, "a"), keep_highest=True)
    with torch.no_grad():
        clean, last, highest = (net.losses(net(x), batch.labels) for x in (batch.images, found, best))
    assert bool((last > clean).all())
    assert bool((highest >= last - 1e-5).all())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("weighting", ["protect", "focus", "uniform"])
def test_the_loss_by_hand(task, weighting):
    made = method("advamd", network(task), task, weighting=weighting, a=0.7, b=0.3, gamma=2.0, attack=ATTACK)
    main, auxiliary = (extract(made.model, name).train() for name in ("main", "auxiliary"))
    batch = batch_of(task)
    attacked = extract(made.model, "auxiliary").eval()
    within = type(THREAT)("linf", THREAT.epsilon * 0.5)
    adversarial = ascent(
        attacked, batch.images, batch.labels, within, steps=3, relative_step=0.4, generator=batch.generator
    )
    middle = (batch.images + adversarial) / 2
    with torch.no_grad():
        benign = main.losses(main(batch.images), batch.labels)
        pair = auxiliary(torch.cat([adversarial, middle]))
        wrong, between = (auxiliary.losses(part, batch.labels) for part in pair.split(len(batch.images)))
    fallen = (torch.exp(-benign) - torch.exp(-wrong)).clamp(0, 1)
    weight = {"protect": (1 - fallen) ** 2, "focus": fallen**2, "uniform": torch.ones_like(fallen)}[weighting]
    expected = benign.mean() + 0.7 * (weight * wrong).mean() + 0.3 * (weight * between).mean()
    loss, parts = made.loss(batch_of(task))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert parts["learning_ratio"].item() == pytest.approx(weight.mean().item(), rel=1e-4, abs=1e-6)


def test_weights_of_pixels_differ_from_weights_of_images_and_need_masks():
    by_pixel = method("advamd", network("segmentation"), "segmentation", weight_by="pixel", attack=ATTACK)
    by_image = method("advamd", network("segmentation"), "segmentation", attack=ATTACK)
    losses = [made.loss(batch_of("segmentation"))[0].item() for made in (by_pixel, by_image)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)
    even = [
        method("advamd", network("segmentation"), "segmentation", weighting="uniform", attack=ATTACK, **more)
        for more in ({"weight_by": "pixel"}, {})
    ]
    same = [made.loss(batch_of("segmentation"))[0].item() for made in even]
    assert same[0] == pytest.approx(same[1], rel=1e-6)
    with pytest.raises(ValueError, match="weight_by: pixel needs a network for segmentation"):
        by_pixel.check(network("detection"))


@pytest.mark.parametrize("task", TASKS)
def test_what_is_deployed_has_the_size_of_the_baseline(task):
    made = method("advamd", network(task), task)
    assert sum(p.numel() for p in made.model.parameters()) > sum(p.numel() for p in network(task).parameters())
    deployed = made.deploy(made.model)
    assert sum(p.numel() for p in deployed.parameters()) == sum(p.numel() for p in network(task).parameters())
    assert [type(m) for m in deployed.modules()] == [type(m) for m in network(task).modules()]
