"""The calibrator's training, by hand: a classifier that never moves, losses, players of the GAN, comparators."""

import copy
import math

import pytest
import torch

from tests.methods.small import CLASSES, batch_of, gradients, images_of, method, network, softmax, split_of
from turncoat.attacks import SHIFTS
from turncoat.errors import TurncoatError
from turncoat.methods.shifting import ShiftingSettings, oracle, shifted
from turncoat.models import Classifier, build, tensor_digest
from turncoat.models.quantised import Quantised
from turncoat.papers.reverse.adapted import AdaptedSettings
from turncoat.papers.reverse.method import ReverseSettings, tell_apart, with_features
from turncoat.settings import TrainingSettings, validate
from turncoat.training import Compute, fit

MODES = ["supervised", "distil", "adversarial", "denoise"]
SEEN = ["contrast", "noise"]
CPU = Compute(torch.device("cpu"), "float32", False, False)


def train(made, split, epochs=3, **settings):
    schedule = TrainingSettings(epochs=epochs, batch_size=16, validate_every=epochs, **settings)
    return fit(made, split, schedule, CPU, seed=0, validate=lambda model: {"validation_clean": 0.0})


def knowing(split):
    """A network that knows the quadrants."""
    made = method("standard", network(), split)
    train(made, split, epochs=12, lr=0.05)
    return made.model.eval()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("quantised", [None, {"weights": 2, "activations": 4}, {"weights": 2, "through": "full"}])
def test_the_frozen_classifier_never_moves(mode, quantised):
    split = split_of(32)
    net = network(steps=3)
    before = tensor_digest(net.state_dict())
    made = method(
        "reverse", net, split, mode=mode, seen=SEEN, width=4,
        quantised=quantised and ReverseSettings.model_validate({"method": "r", "quantised": quantised}).quantised,
    )  # fmt: skip
    rounded = tensor_digest(made.deployed.state_dict())
    generator = tensor_digest(made.model.pipeline.generator.state_dict())
    outcome = train(made, split, lr=0.01, optimizer="adam")
    deployed = made.deploy(made.model)
    assert tensor_digest(net.state_dict()) == before
    assert tensor_digest(deployed.classifier.state_dict()) == rounded
    assert tensor_digest(deployed.generator.state_dict()) != generator
    assert outcome.best_epoch == 3  # the last
    assert deployed.spec["classifier"]["kind"] == ("quantised" if quantised else "classifier")
    assert (rounded == before) == (quantised is None)


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", pytest.param("vgg16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("bits", [None, 4])
def test_the_papers_networks_behind_a_calibrator(model, bits):
    """The three that the abstracts name: frozen, whole or at few bits, and rebuilt from what is stored of them."""
    net = Classifier(model, CLASSES, (1, 8, 8), [0.4], [0.3])
    before = tensor_digest(net.state_dict())
    quantised = {"weights": bits, "activations": bits} if bits else None
    made = method("reverse", net, split_of(8), mode="adversarial", seen=SEEN, width=4, quantised=quantised)
    train(made, split_of(8), epochs=1, lr=0.01, optimizer="adam")
    deployed = made.deploy(made.model).eval()
    assert tensor_digest(net.state_dict()) == before
    again = build(deployed.spec).eval()
    again.load_state_dict(deployed.state_dict())
    images = images_of(3)
    with torch.no_grad():
        torch.testing.assert_close(again(images), deployed(images))
        assert not torch.equal(deployed(images), net.eval()(images))


def test_a_classifier_that_moved_is_not_deployed():
    made = method("reverse", seen=SEEN)
    made.full.network[1].running_mean += 1e-6
    with pytest.raises(TurncoatError, match="frozen classifier changed"):
        made.deploy(made.model)


def test_supervised_distil_and_denoise_by_hand():
    net = network(steps=3).eval()
    with torch.no_grad():
        net.network[-1].weight *= 30  # an untrained network answers all images alike
    batch = batch_of(6)
    seen = shifted(batch_of(6), ShiftingSettings(method="reverse", seen=SEEN))
    for mode in ("supervised", "distil", "denoise"):
        made = method("reverse", copy.deepcopy(net), mode=mode, seen=SEEN, bound=0.1, width=4)
        with torch.no_grad():
            made.model.pipeline.generator.weight.fill_(0.05)
            calibrated = made.model.pipeline.calibrate(seen).double()
            rows = net.double()(calibrated).tolist()
            clean = net(batch.images.double()).tolist()
            net.float()
        if mode == "supervised":
            values = [-math.log(softmax(row)[label]) for row, label in zip(rows, batch.labels.tolist(), strict=True)]
        elif mode == "distil":
            values = []
            for row, other in zip(clean, rows, strict=True):
                p, q = softmax(row), softmax(other)
                values.append(sum(p[k] * math.log(p[k] / q[k]) for k in range(CLASSES)))
        else:
            values = (calibrated - batch.images.double()).square().flatten().tolist()
        loss, found, _ = gradients(made, batch_of(6))
        assert loss.item() == pytest.approx(sum(values) / len(values), rel=1e-3)
        assert found
        assert all("classifier" not in name for name in found)


def test_the_players_of_a_gan_do_not_touch_each_other():
    torch.manual_seed(0)
    judge = torch.nn.Linear(5, 1)
    real, source = torch.randn(7, 5), torch.randn(7, 5, requires_grad=True)
    push, told = tell_apart(judge, real, source * 2)
    (on_made,) = torch.autograd.grad(push, source, retain_graph=True)
    expected = torch.autograd.grad(torch.nn.functional.softplus(-judge(source * 2)).mean(), source)[0]
    torch.testing.assert_close(on_made, expected)
    assert push.item() == pytest.approx(torch.nn.functional.softplus(-judge(source * 2)).mean().item())
    assert torch.autograd.grad(push, judge.weight, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(told, source, allow_unused=True, retain_graph=True) == (None,)
    r, m = judge(real).flatten().tolist(), judge(source * 2).flatten().tolist()
    by_hand = sum(math.log1p(math.exp(-score)) for score in r) / 7 + sum(math.log1p(math.exp(score)) for score in m) / 7
    assert told.item() == pytest.approx(by_hand, rel=1e-5)


def test_features_are_what_the_last_layer_reads():
    net = network(steps=2).eval()
    logits, features = with_features(net, batch_of().images)
    torch.testing.assert_close(net.network[-1](features), logits)


def test_a_calibrator_learns_to_undo_what_the_classifier_cannot_read():
    """The classifier knows bright quadrants; under strong loss of contrast it needs help."""
    split = split_of(64)
    net = knowing(split)
    unseen = split_of(200, seed=1)
    flat = SHIFTS["contrast"](unseen.floats(), 5, None) * 0.5
    made = method("reverse", copy.deepcopy(net), split, seen=["contrast", "brightness"], severities=[4, 5], bound=0.5)
    train(made, split, epochs=25, lr=0.01, optimizer="adam")
    deployed = made.deploy(made.model).eval()
    with torch.no_grad():
        before, after = ((module(flat).argmax(1) == unseen.labels).float().mean() for module in (net, deployed))
        losses = [torch.nn.functional.cross_entropy(module(flat), unseen.labels).item() for module in (net, deployed)]
    assert losses[1] < losses[0]
    assert after > before


def test_the_oracle_knows_the_labels_and_without_a_step_it_knows_nothing():
    split = split_of(40)
    net = knowing(split)
    before = tensor_digest(net.state_dict())
    rows = oracle(net, split, 0.3, [5], seed=0)
    assert [row["shift"] for row in rows] == list(SHIFTS)
    flat = SHIFTS["contrast"](split.floats(), 5, None)
    with torch.no_grad():
        right = int((net(flat).argmax(1) == split.labels).sum())
    row = rows[list(SHIFTS).index("contrast")]
    assert (row["severity"], row["correct"], row["n"]) == (5, right, 40)
    assert row["oracle"] > right
    assert all(row["oracle"] == row["correct"] for row in oracle(net, split, 0.0, [1, 5], seed=0))
    assert tensor_digest(net.state_dict()) == before
    assert not net.training


def test_shifted_batches_hold_every_share_and_depend_on_their_key_alone():
    settings = ShiftingSettings(method="reverse", seen=["contrast", "blur"], severities=[5])
    first, again, other = (shifted(batch_of(9, seed), settings) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    batch = batch_of(9)
    kept = (first == batch.images).flatten(1).all(1)
    assert kept.sum() == 3  # a third is clean
    candidates = torch.stack([batch.images, *(SHIFTS[name](batch.images, 5, None) for name in ("contrast", "blur"))], 1)
    distance = (candidates - first[:, None]).abs().flatten(2).amax(2)
    assert distance.argmin(1).bincount().tolist() == [3, 3, 3]
    assert distance.amin(1).max() < 1e-6
    nothing = ShiftingSettings(method="reverse", seen=[])
    assert torch.equal(shifted(batch_of(9), nothing), batch.images)


@pytest.mark.parametrize("adapt", ["weights", "statistics", "input", "nothing"])
def test_each_comparator_moves_what_it_says(adapt):
    split, net = split_of(32), network(steps=3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    made = method("adapted", net, split, adapt=adapt, seen=SEEN)
    train(made, split, epochs=2, lr=0.05)
    deployed = made.deploy(made.model)
    after = (deployed.classifier if adapt == "input" else deployed).state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    expected = {"weights": set(before), "statistics": statistics, "input": set(), "nothing": set()}[adapt]
    assert moved == expected


def test_a_comparator_may_be_quantised():
    quantised = AdaptedSettings.model_validate({"method": "adapted", "quantised": {"weights": 2}}).quantised
    made = method("adapted", network(steps=3), split_of(32), adapt="nothing", quantised=quantised)
    assert isinstance(made.deploy(made.model), Quantised)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"seen": ["brightnes"]}, "of brightness, contrast"),
        ({"seen": ["blur", "blur"]}, "at most once"),
        ({"severities": [0]}, "from 1 to 5"),
        ({"bound": 2.0}, "less than or equal to 1"),
        ({"quantised": {"weights": 1}}, "greater than or equal to 2"),
        ({"mode": "supervise"}, "supervised"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(TurncoatError, match=says):
        validate(ReverseSettings, {"method": "reverse", **settings}, "arms.reverse")


def test_departures_keep_adam():
    settings = validate(ReverseSettings, {"method": "reverse", "training": {"epochs": 3}}, "arms.reverse")
    assert settings.training["optimizer"] == "adam"
    assert settings.training["epochs"] == 3
