"""RAT: perturbations that are inside the ball and the same for all images, the loss by hand, the controls."""

import math

import pytest
import torch

from tests.methods.small import CLASSES, TASK, batch_of, double, gradients, method, network, softmax, split_of
from turncoat.attacks import Threat, universal_success
from turncoat.data.batches import DeviceSplit
from turncoat.errors import TurncoatError
from turncoat.methods.base import Task
from turncoat.methods.universal import UniversalSettings, class_perturbations, reached, stratified
from turncoat.papers.rat.method import RatSettings
from turncoat.settings import TrainingSettings, validate
from turncoat.training import Compute, fit

CPU = Compute(torch.device("cpu"), "float32", False, False)


def rat(**settings):
    return method("rat", network(steps=3), split_of(16), **settings)


@pytest.fixture(scope="module")
def trained():
    """A network that knows the quadrants, and the images it knows them from."""
    split = split_of(64)
    made = method("standard", network(), split)
    fit(
        made, split, TrainingSettings(epochs=15, batch_size=16, lr=0.05, validate_every=15), CPU, seed=0,
        validate=lambda model: {"validation_clean": 0.0},
    )  # fmt: skip
    return made.model.eval(), split


@pytest.mark.parametrize("form", ["sgd", "deepfool"])
def test_universal_perturbations_stay_in_the_ball_and_reach_their_targets(trained, form):
    net, split = trained
    threat = Threat("linf", 0.4)
    settings = UniversalSettings(form=form, passes=5, batch_size=4)
    made = class_perturbations(net, split, threat, range(CLASSES), settings, seed=0)
    assert made.shape == (CLASSES, 1, 8, 8)
    assert made.abs().max() <= 0.4
    unseen = split_of(64, seed=1)
    for target, change in enumerate(made):
        before = universal_success(net, unseen.floats(), unseen.labels, torch.zeros_like(change), target=target)
        after = universal_success(net, unseen.floats(), unseen.labels, change, target=target)
        assert before < 0.1
        assert after > 0.5, f"target {target}: {after:.0%} of unseen images"
    again = class_perturbations(net, split, threat, range(CLASSES), settings, seed=0)
    assert torch.equal(made, again)


def test_success_is_counted_by_target_and_true_class(trained):
    net, _ = trained
    split, change = split_of(40, seed=1), torch.zeros(1, 8, 8)
    change[:, 4:, 4:] = 0.3  # towards class 3, the last quadrant
    found = reached(net, split, change, 3, CLASSES)
    with torch.no_grad():
        answers = [int(net((image[None] + change).clamp(0, 1)).argmax()) for image in split.floats()]
    labels = split.labels.tolist()
    counts = [
        sum(answer == 3 and label == k != 3 for answer, label in zip(answers, labels, strict=True))
        for k in range(CLASSES)
    ]
    assert found == {"target": 3, "reached": sum(counts), "n": 30, "from": counts}
    assert sum(counts) > 0


@pytest.mark.parametrize("perturbation", ["targeted", "noise", "chessboard", "universal"])
def test_every_image_meets_one_of_a_few_perturbations_inside_the_ball(perturbation):
    made = rat(perturbation=perturbation, refresh=0.3 if perturbation == "universal" else 0.0)
    batch = batch_of(32)
    perturbed = made.perturbed(batch)
    bank = made.model.perturbations
    assert bank.abs().max() <= TASK.threat.epsilon
    assert 0 <= perturbed.min() <= perturbed.max() <= 1
    candidates = (batch.images[:, None] + bank[None]).clamp(0, 1)
    distance = (candidates - perturbed[:, None]).abs().flatten(2).amax(2)
    assert (distance.amin(1) == 0).all()
    if perturbation == "targeted":
        own = distance[torch.arange(32), batch.labels]
        assert (own > 0).all(), "an image met the perturbation towards its own class"
    if perturbation in ("noise", "chessboard"):
        assert (bank.abs() == TASK.threat.epsilon).all()


def test_a_chessboard_alternates_and_noise_does_not():
    board = rat(perturbation="chessboard").model.perturbations
    assert torch.equal(board[0], -board[1])
    assert (board[0, :, 1:] == -board[0, :, :-1]).all()
    assert (board[0, :, :, 1:] == -board[0, :, :, :-1]).all()
    noise = rat(perturbation="noise").model.perturbations
    assert 0.3 < (noise > 0).float().mean() < 0.7


@pytest.mark.parametrize("beside", ["subset", "nothing"])
def test_the_loss_is_cross_entropy_over_clean_and_perturbed_images_alike(beside):
    made = rat(beside=beside)
    net = double(made.model.network)
    perturbed = made.perturbed(batch_of(6))
    batch = batch_of(6)
    images = perturbed if beside == "nothing" else torch.cat([perturbed, batch.images])
    with torch.no_grad():
        rows = net(images.double()).tolist()
    labels = batch.labels.tolist() * (1 if beside == "nothing" else 2)
    expected = sum(-math.log(softmax(row)[label]) for row, label in zip(rows, labels, strict=True)) / len(rows)
    loss, found, _ = gradients(made, batch_of(6))
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert {name.removeprefix("network.") for name in found} == {name for name, _ in network().named_parameters()}


def test_clean_finetuning_on_the_subset_is_standard_training():
    loss, found, _ = gradients(rat(perturbation="none"), batch_of())
    expected, standard, _ = gradients(method("standard", network(steps=3)), batch_of())
    assert torch.equal(loss, expected)
    assert all(torch.equal(found[f"network.{name}"], gradient) for name, gradient in standard.items())


def test_beside_the_training_set_perturbed_images_come_from_the_subset():
    split = split_of(64)
    subset = DeviceSplit(torch.full((4, 1, 8, 8), 128, dtype=torch.uint8), torch.arange(4))
    made = method("rat", network(), split, subset=4, beside="train", perturbation="noise")
    made.subset = subset
    seen = []
    made.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    made.loss(batch_of(6))
    grey = seen[0][:6]
    assert torch.allclose((grey - 128 / 255).abs(), torch.full_like(grey, TASK.threat.epsilon), atol=1e-6)
    assert torch.equal(seen[0][6:], batch_of(6).images)


def test_targets_left_out_are_not_met():
    made = rat(targets=[0, 2])
    assert made.model.perturbations.shape[0] == 2
    assert made.allowed.tolist() == [[0, 1], [1, 1], [1, 0], [1, 1]]
    alone = rat(targets=[1])
    alone.perturbed(batch_of(16))  # images of class 1 have no other perturbation to meet, and that is no error


def test_a_refreshed_perturbation_gains_on_the_network_it_is_trained_against():
    made = rat(perturbation="universal", refresh=0.25)
    batch = batch_of(32)
    losses = []
    for _ in range(6):
        perturbed = made.perturbed(batch)
        with torch.no_grad():
            losses.append(torch.nn.functional.cross_entropy(made.model.eval()(perturbed), batch.labels).item())
        made.model.train()
    assert losses[-1] > losses[0]
    assert made.model.perturbations.abs().max() <= TASK.threat.epsilon
    statistics = {name: value for name, value in made.model.network.state_dict().items() if "running" in name}
    fresh = network(steps=3).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in statistics.items())
    assert "perturbations" in made.model.state_dict()  # so that a resumed run goes on with them


def test_what_is_deployed_is_the_network_alone():
    made = rat()
    assert made.deploy(made.model) is made.model.network
    assert made.model.network.spec["kind"] == "classifier"


def test_a_stratified_subset():
    split = split_of(41)
    chosen = stratified(split, 10, seed=3)
    assert sorted(chosen.labels.bincount().tolist()) == [2, 2, 3, 3]
    places = {image.numpy().tobytes(): int(label) for image, label in zip(split.images, split.labels, strict=True)}
    found = [image.numpy().tobytes() for image in chosen.images]
    assert len(set(found)) == 10
    assert [places[image] for image in found] == chosen.labels.tolist()
    assert not torch.equal(chosen.images, stratified(split, 10, seed=4).images)
    assert stratified(split, None, 0) is split
    assert stratified(split, 1000, 0) is split


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"perturbation": "universal"}, "set refresh"),
        ({"perturbation": "noise", "refresh": 0.1}, "leave refresh out"),
        ({"perturbation": "none", "targets": [1]}, "leave targets out"),
        ({"subset": 0}, "greater than 0"),
        ({"perturbaton": "noise"}, "did you mean perturbation?"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(TurncoatError, match=says.replace("?", r"\?")):
        validate(RatSettings, {"method": "rat", **settings}, "arms.rat")


def test_targets_and_norms_that_do_not_fit_the_data_set_are_refused():
    with pytest.raises(TurncoatError, match="targets \\[9\\] are no classes"):
        rat(targets=[1, 9])
    with pytest.raises(TurncoatError, match="got l2"):
        method("rat", network(), split_of(16), task=Task(Threat("l2", 0.5), CLASSES))
