"""AToP's two phases: losses by hand, who is trained and who is not, determinism, and digits rebuilt (slow)."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from tests.defaults import DEFAULTS
from tests.methods.small import TASK, batch_of, double, gradients, method, network, split_of
from turncoat import models
from turncoat.attacks import Threat, attacked
from turncoat.data.batches import batches, batches_an_epoch, resident
from turncoat.errors import TurncoatError
from turncoat.evaluation import evaluate
from turncoat.methods.base import Task
from turncoat.models import tensor_digest
from turncoat.models.purifier import Pipeline
from turncoat.models.transforms import Transform, surrounding_mean
from turncoat.papers.arms import arm_settings, check_arms, method_class
from turncoat.papers.arms import schedule as schedule_of
from turncoat.papers.atop.purifying import Game
from turncoat.randomness import generator
from turncoat.settings import ComputeSettings, Settings, TrainingSettings, load
from turncoat.training import fit, resolve
from turncoat.training.validation import validator

PURIFIER = {"network": "unet", "width": 2}


def pretrained(**settings):
    """A purifier that has not been trained, as an arm finds it under `pretrained`; its head is not zero any more."""
    made = method("purifier", **PURIFIER, **settings)
    pipeline = made.deploy(made.model)
    with torch.no_grad():
        for stage in pipeline.purifier.stages:
            stage.head.weight.normal_(0, 0.3, generator=generator("head"))
    return pipeline


def atop(net=None, **settings):
    task = Task(TASK.threat, TASK.classes, {"start": pretrained(), "other": network(9)})
    return method("atop", net, task=task, purifier="start", **settings)


@pytest.mark.parametrize("transform", ["none", "rt1", "rt2", "rt3"])
def test_pretraining_without_a_game_is_l1_to_the_clean_image(transform):
    made = method("purifier", **PURIFIER, transform=transform, gan_weight=0.0)
    batch = batch_of()
    loss, _, parts = gradients(made, batch)
    noisy, masks = made.transform(batch_of().images, batch_of().generator)
    rebuilt = made.deploy(made.model).purifier(noisy, masks[:, 0]).detach()
    assert float(loss) == pytest.approx(float((rebuilt - batch.images).abs().mean()), rel=1e-6)
    assert set(parts) == {"l1"}


def test_both_stages_of_the_gated_purifier_are_supervised():
    made = method("purifier", network="gated", width=2, gan_weight=0.0)
    loss, grads, parts = gradients(made, batch_of())
    assert float(loss) > float(parts["l1"])
    assert any(name.startswith("purifier.stages.0.head") for name in grads)


def test_each_player_is_moved_by_its_own_term():
    made = method("purifier", **PURIFIER, gan_weight=0.7)
    game, batch = made.model, batch_of()
    frozen_power = copy.deepcopy(game.discriminator)  # spectral norm iterates at each pass
    made_images = batch.images.clone().mul(0.9).requires_grad_()
    push, fooled, told = game.hinge(batch.images, made_images, torch.zeros(6, 1, 8, 8))

    (slope,) = torch.autograd.grad(push, made_images)
    l1 = (made_images - 2).abs().mean()
    assert float(slope.norm()) == pytest.approx(float(torch.autograd.grad(l1, made_images)[0].norm()), rel=1e-4)
    again = made_images.detach().requires_grad_()
    (wanted,) = torch.autograd.grad(-game.discriminator(again).mean(), again)
    assert functional.cosine_similarity(slope.flatten(), wanted.flatten(), 0) > 0.999
    assert not fooled.requires_grad

    on_real, on_made = frozen_power(torch.cat([batch.images, made_images.detach()])).chunk(2)
    hinge = (1 - on_real).clamp_min(0).mean() + (1 + on_made).clamp_min(0).mean()
    assert float(told.detach()) == pytest.approx(float(hinge.detach()), rel=1e-4)
    told.backward()
    assert made_images.grad is None
    assert all(p.grad is not None for p in game.discriminator.parameters())

    _, grads, parts = gradients(made, batch)
    assert {name.split(".")[0] for name in grads} == {"generator", "discriminator"}
    assert set(parts) == {"l1", "generator", "discriminator"}


@pytest.mark.parametrize("reconstruct", ["clean", "adversarial"])
@pytest.mark.parametrize("through", ["pipeline", "classifier"])
def test_fine_tuning_by_hand(through, reconstruct):
    made = atop(attack_through=through, reconstruct=reconstruct, gan_gradient=False, ce_weight=0.2)
    loss, _, parts = gradients(made, batch_of())

    batch, pipeline = batch_of(), made.pipeline
    at = batch.images.clone().requires_grad_()
    if through == "classifier":
        logits = pipeline.classifier(at)
    else:
        with attacked(pipeline, "eval", batch_of().generator):
            logits = pipeline(at)
    (slope,) = torch.autograd.grad(functional.cross_entropy(logits, batch.labels), at)
    adversarial = (batch.images + 0.1 * slope.sign()).clamp(0, 1)
    purified = pipeline.purify(adversarial, batch.generator)
    target = batch.images if reconstruct == "clean" else adversarial
    l1 = (purified - target).abs().mean()
    ce = functional.cross_entropy(pipeline.classifier(purified), batch.labels)
    assert loss.item() == pytest.approx((l1 + 0.2 * ce).item(), rel=1e-4)
    assert parts["l1"].item() == pytest.approx(l1.item(), rel=1e-4)
    assert parts["ce"].item() == pytest.approx(ce.item(), rel=1e-4)


AUTHORS = {
    "attack_through": "classifier",
    "reconstruct": "adversarial",
    "l1_over": "stages",
    "l1_range": "-1..1",
    "ce_after": 2,
    "gan_mask": True,
    "gan_scale": "fixed",
    "gan_weight": 1.0,
    "shared_mask": True,
}


def authors(**more):
    """The authors' training with their kind of purifier, four channels wide; its heads make something."""
    purifier = method("purifier", network="inpainter", width=4)
    pipeline = purifier.deploy(purifier.model)
    with torch.no_grad():
        for stage in pipeline.purifier.stages:
            stage.head.weight.normal_(0, 0.3, generator=generator("head"))
    task = Task(TASK.threat, TASK.classes, {"start": pipeline})
    return method("atop", network(steps=3), task=task, purifier="start", **(AUTHORS | more))


def in_epoch(epoch):
    return replace(batch_of(), epoch=epoch)


@pytest.mark.parametrize("transform", ["rt1", "rt2", "rt3"])
@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
@pytest.mark.parametrize("rebuild", ["adversarial", "clean"])
def test_the_authors_loss_by_hand_in_float64(epoch, rebuild, transform):
    """Everything on [-1, 1], as their code has it: FGSM on the classifier, l1 at both stages, hinge, lambda late."""
    made = authors(transform=transform, rebuild=rebuild)
    game, purifier = copy.deepcopy(made.model.discriminator).double(), copy.deepcopy(made.pipeline.purifier).double()
    loss, grads, parts = gradients(made, in_epoch(epoch))

    batch = batch_of()
    at = batch.images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(functional.cross_entropy(made.pipeline.classifier(at), batch.labels), at)
    images = (batch.images + 0.1 * slope.sign()).clamp(0, 1)

    def stages(of):
        noisy, masks = made.pipeline.transform(of, batch_of().generator)
        made_here, visible = [], (2 * noisy.double() - 1)[:, None] * (1 - masks)
        for part in range(masks.shape[1]):
            mask, seen = masks[:, part].double(), visible[:, part]
            coarse = purifier.stages[0](torch.cat([seen, torch.ones_like(mask), mask], 1))
            fine = purifier.stages[1](seen + coarse * mask)
            made_here.append(torch.stack([coarse, fine]) * (mask if masks.shape[1] > 1 else 1))
        return sum(made_here), masks.sum(1)

    assert transform == "rt3" or (stages(images)[1][0] == stages(images)[1]).all()  # one mask for the batch
    (_, last), hidden = stages(images)
    coarse, fine = stages(images if rebuild == "adversarial" else batch.images)[0]
    target = 2 * images.double() - 1
    l1 = (coarse - target).abs().mean() + (fine - target).abs().mean()
    shown = torch.cat([torch.cat([target, fine.detach()]), hidden.repeat(2, 1, 1, 1)], 1)
    on_real, on_made = game.network(shown).chunk(2)
    told = (1 - on_real).clamp_min(0).mean() + (1 + on_made).clamp_min(0).mean()
    leaf = fine.detach().requires_grad_()
    fooled = -game.network(torch.cat([leaf, hidden.double()], 1)).mean()
    (push,) = torch.autograd.grad(fooled, leaf)
    classifier = double(made.pipeline.classifier).eval()
    ce = functional.cross_entropy(classifier((last + 1) / 2), batch.labels)
    weight = 0.05 if epoch >= 2 else 0.0

    assert parts["ce"].item() == pytest.approx(ce.item(), rel=1e-4)
    assert 2 * parts["l1"].item() == pytest.approx((fine - target).abs().mean().item(), rel=1e-4)
    assert parts["discriminator"].item() == pytest.approx(told.item(), rel=1e-4)
    assert parts["generator"].item() == pytest.approx(fooled.item(), rel=1e-3, abs=1e-4)
    linear = ((fine + 1) * push).sum()  # the push is linear in the image; only its gradient has a meaning
    assert loss.item() == pytest.approx((l1 + linear + weight * ce + told).item(), rel=1e-4)
    (l1 + (fine * push).sum() + weight * ce).backward()
    for name, parameter in purifier.named_parameters():
        found = grads[f"generator.purifier.{name}"].double()
        torch.testing.assert_close(
            found, parameter.grad, rtol=5e-3, atol=2e-5 + 1e-3 * parameter.grad.abs().max().item()
        )


def test_without_its_gradient_the_game_is_not_played_as_in_the_code():
    made = authors(gan_gradient=False)
    loss, _, parts = gradients(made, in_epoch(2))
    assert set(parts) == {"train_accuracy", "l1", "ce"}
    other = gradients(authors(), in_epoch(2))
    assert loss != other[0]


@pytest.mark.parametrize("rebuild", ["adversarial", "clean"])
def test_what_is_purified_is_counted_in_every_epoch(rebuild):
    made = authors(rebuild=rebuild)
    schedule = TrainingSettings(epochs=3, batch_size=6, steps=1, **made.settings.training)
    look = {"validation_robust": 0.0}
    outcome = fit(made, split_of(24), schedule, resolve(ComputeSettings(device="cpu")), seed=0, validate=lambda m: look)
    images = 3 * 6  # one batch an epoch
    assert outcome.passes["images"] == images
    purified = 1 + (rebuild == "clean")
    assert outcome.passes["forward"] == outcome.passes["backward"] == (1 + purified) * images


def test_an_epoch_of_so_many_steps_meets_other_images_each_time():
    split = split_of(40)
    met = [torch.cat([batch.index for batch in batches(split, 4, 0, False, 0, e, 3)]).tolist() for e in range(3)]
    assert [len(set(images)) for images in met] == [12] * 3
    assert len({tuple(sorted(images)) for images in met}) == 3
    assert met[0] == torch.cat([batch.index for batch in batches(split, 4, 0, False, 0, 0)]).tolist()[:12]
    assert [batch.epoch for batch in batches(split, 20, 0, False, 0, 7)] == [7, 7]
    assert batches_an_epoch(split, 4, 625) == batches_an_epoch(split, 4) == 10


def test_the_arms_of_the_authors_say_what_their_code_says():
    for arm, transform in {"atop-authors": "rt2", "atop-authors-rt1": "rt1", "atop-authors-rt3": "rt3"}.items():
        plan = arm_settings(load(DEFAULTS), arm)
        assert {key: getattr(plan, key) for key in AUTHORS} == AUTHORS
        assert plan.transform == transform
        wanted = {"optimizer": "adam", "lr": 1e-4, "betas": [0.5, 0.999], "weight_decay": 0.0, "batch_size": 8}
        wanted |= {"steps": 625, "schedule": "constant", "warmup": 0.0, "ema": 0.0, "crop": 0}
        training = schedule_of(load(DEFAULTS), "cifar10", arm).model_dump()
        assert {key: training[key] for key in wanted} == wanted
        assert plan.ce_weight == 0.05
        began = arm_settings(load(DEFAULTS), plan.purifier, "pretrained")
        assert (began.network, began.width, began.gan_weight) == ("inpainter", 48, 0)
        before = arm_settings(load(DEFAULTS), arm.replace("atop-authors", "purifier-authors"))
        assert before.transform == transform
        assert (before.network, before.width) == ("inpainter", 48)


@pytest.mark.parametrize("name", ["purifier", "atop"])
def test_losses_stay_close_in_half_precision(name):
    losses = []
    for enabled in (False, True):
        made = atop() if name == "atop" else method("purifier", network="gated", width=2)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss, _ = made.loss(batch_of())
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(p.grad.isfinite().all() for p in made.model.parameters() if p.grad is not None)
        losses.append(float(loss.detach()))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def run(net, seed=0, epochs=2, **settings):
    made = atop(net, **settings)
    schedule = TrainingSettings.model_validate({"epochs": epochs, "batch_size": 6} | made.settings.training)

    def validate(deployed):
        return {"validation_robust": 0.0}

    compute = resolve(ComputeSettings(device="cpu"))
    return made, fit(made, split_of(12), schedule, compute, seed=seed, validate=validate)


@pytest.mark.parametrize("gan_gradient", [True, False])
def test_fine_tuning_leaves_the_classifier_as_it_was_bit_for_bit(gan_gradient):
    net = network(steps=3)
    before = tensor_digest(net.state_dict())
    made, outcome = run(net, gan_gradient=gan_gradient)
    deployed = made.deploy(made.model)
    assert isinstance(deployed, Pipeline)
    assert tensor_digest(deployed.classifier.state_dict()) == before
    assert tensor_digest({k[11:]: v for k, v in outcome.last.items() if k.startswith("classifier.")}) == before
    start = pretrained().purifier.state_dict()
    assert all(not torch.equal(value, start[name]) for name, value in deployed.purifier.state_dict().items())
    assert outcome.passes["forward"] == 2 * outcome.passes["images"]  # the attack's pass and the loss's


@pytest.mark.parametrize("gan_gradient", [True, False])
@pytest.mark.parametrize("through", ["pipeline", "classifier"])
def test_the_attack_s_passes_count_whatever_it_passes_through(through, gan_gradient):
    attack = {"steps": 3, "relative_step": 0.5, "start": "none"}
    _, outcome = run(network(steps=3), attack_through=through, gan_gradient=gan_gradient, attack=attack)
    assert outcome.passes["forward"] == outcome.passes["backward"] == (3 + 1) * outcome.passes["images"]


def test_training_repeats_itself_whatever_the_global_generator_is_at():
    outcomes = []
    for noise in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(noise)
            outcomes.append(run(network(steps=3))[1])
    assert tensor_digest(outcomes[0].last) == tensor_digest(outcomes[1].last)
    assert outcomes[0].history == outcomes[1].history
    assert tensor_digest(run(network(steps=3), seed=1)[1].last) != tensor_digest(outcomes[0].last)


def test_a_random_network_is_measured_alike_twice():
    pipeline, split = pretrained().eval(), split_of(24)
    suite = {"pgd": {"attack": "pgd", "steps": 2}, "eot": {"attack": "pgd", "steps": 2, "eot": 3, "bpda": True}}
    measured = []
    for noise in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(noise)
            result = evaluate(pipeline, split.floats(), split.labels, TASK.threat, suite, seed=5)
            looks = validator(split, TASK.threat, seed=5, steps=2)(pipeline)
        measured.append(([result.prediction.tolist()] + [c.tolist() for c in result.correct.values()], looks))
    assert measured[0] == measured[1]
    assert {"pgd", "eot"} <= set(result.correct)


def test_the_discriminator_is_not_deployed():
    made = atop()
    assert isinstance(made.model, Game)
    assert not any("discriminator" in name for name in made.deploy(made.model).state_dict())
    assert isinstance(atop(gan_gradient=False).model, Pipeline)


def test_another_classifier_and_votes():
    made = atop(classifier="other", votes=3)
    deployed = made.deploy(made.model)
    assert tensor_digest(deployed.classifier.state_dict()) == tensor_digest(network(9).state_dict())
    assert deployed.spec["votes"] == 3
    assert made.pipeline.votes == 1  # training draws once
    assert made.settings.builds_on == ("start", "other")


def test_a_purifier_where_a_classifier_is_wanted_and_the_other_way_round():
    with pytest.raises(TurncoatError, match="classifier"):
        atop(classifier="start")
    task = Task(TASK.threat, TASK.classes, {"x": network()})
    with pytest.raises(TurncoatError, match="purifier"):
        method("atop", task=task, purifier="x")


def settings_with(study=(), **sections):
    raw = load(DEFAULTS).model_dump()
    raw["study"] |= {"arms": ["pgd", *study], "pretrained": []}
    for name, entries in sections.items():
        raw[name] |= entries
    return Settings.model_validate(raw)


def test_arms_name_what_they_build_on():
    check_arms(load(DEFAULTS))
    with pytest.raises(TurncoatError, match=r"arms\.atop builds on unet: add it to study\.pretrained"):
        check_arms(settings_with(study=["atop"]))
    with pytest.raises(TurncoatError, match=r"pretrained\.nowhere is not defined"):
        check_arms(settings_with(arms={"odd": {"method": "atop", "purifier": "nowhere"}}))
    with pytest.raises(TurncoatError, match="only arms build on"):
        check_arms(settings_with(pretrained={"odd": {"method": "atop", "purifier": "unet"}}))


def test_the_optimiser_is_the_paper_s_and_an_arm_says_only_what_it_changes():
    arm = arm_settings(load(DEFAULTS), "atop")
    assert arm.training["optimizer"] == "adam"
    assert arm.training["betas"] == [0.5, 0.999]
    assert arm.training["epochs"] == 20
    assert arm_settings(load(DEFAULTS), "purifier-rt2") == arm_settings(load(DEFAULTS), "unet", "pretrained")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "gated"])
def test_purifiers_rebuild_digits_better_than_their_surroundings(tmp_path, name):
    """On held-out digits the l1 error inside the masks is at least 30 % below that of filling with the mean around."""
    from turncoat.data.prepare import prepare

    settings = load(DEFAULTS)
    digits = prepare("digits", settings.datasets["digits"].data, tmp_path)
    train = resident(digits.train.images, digits.train.labels, "cpu")
    held_out = resident(digits.validation.images, digits.validation.labels, "cpu").floats()
    plan = arm_settings(settings, name, "pretrained")
    made = method_class("purifier")(plan, Task(Threat("linf", 0.15), 10))
    classifier = models.Classifier("small_cnn", 10, (1, 8, 8), [0.3], [0.4])
    made.prepare(classifier, train, seed=0)
    schedule = settings.datasets["digits"].finetuning.model_dump() | plan.training | {"validate_every": 100}
    compute = resolve(ComputeSettings(device="cpu"))
    fit(
        made, train, TrainingSettings.model_validate(schedule), compute, seed=0,
        validate=lambda deployed: {"validation_clean": 0.0},
    )  # fmt: skip
    purifier = made.deploy(made.model).purifier.eval()
    for transform in ("rt1", "rt2"):
        noisy, masks = Transform(transform)(held_out, generator("held out"))
        masks = masks[:, 0]
        with torch.no_grad():
            made_error = ((purifier(noisy, masks) - held_out).abs() * masks).sum() / masks.sum()
        filled_error = ((surrounding_mean(noisy, masks) - held_out).abs() * masks).sum() / masks.sum()
        print(f"{name}, {transform}: {float(made_error):.3f} against {float(filled_error):.3f}")  # -s shows it
        assert made_error < 0.7 * filled_error, (transform, float(made_error), float(filled_error))
