"""AdvAmd against two plain networks that share their convolutions, in float64; its limits: AdvProp, joint, vanilla."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.defaults import DEFAULTS
from tests.methods.small import TASK, adversarial, batch_of, double, gradients, images_of, method, network, split_of
from turncoat import models
from turncoat.errors import TurncoatError
from turncoat.models.dual_norm import SplitBatchNorm, branch_gap, extract
from turncoat.papers.advamd.method import along, learning_ratio
from turncoat.papers.arms import arm_settings, method_class, schedule
from turncoat.settings import AttackSettings, ComputeSettings, TrainingSettings, load
from turncoat.training import fit, resolve

ATTACK = AttackSettings(steps=3, radius=0.8, relative_step=0.3)


def prepared(**arm):
    """A method whose branches have been trained apart, so that confusing them would show."""
    made = method("advamd", network(steps=2), **({"attack": ATTACK} | arm))
    for shift, module in enumerate(made.model.modules()):
        if isinstance(module, SplitBatchNorm) and module.shared is None:
            for place, branch in enumerate(module.branches.values()):
                branch.weight.data.mul_(1 + 0.1 * place)
                branch.bias.data.add_(0.05 * place * (shift % 3))
                branch.running_mean.add_(0.02 * place)
    return made


def by_hand(made, batch, perturbed, mediates):
    """The loss in float64: one plain network a branch, one example at a time. Returns it and the branch networks."""
    s = made.settings
    names = ["main", "auxiliary", *(["own"] if s.mediate_bn == "own" else [])]
    nets = {name: double(extract(made.model, name)) for name in names}
    groups = {"main": [batch.images], "auxiliary": [perturbed], "own": []}
    groups[s.mediate_bn] += mediates
    n = len(batch.labels)
    p = {name: torch.softmax(nets[name](torch.cat(groups[name])), 1) for name in names}
    right = {name: [p[name][row, batch.labels[row % n]] for row in range(len(p[name]))] for name in names}
    start = 0 if s.mediate_bn == "own" else n
    total = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        clean, attacked = right["main"][i], right["auxiliary"][i]
        v = min(max(clean.item() - attacked.item(), 0.0), 1.0)
        w = {"protect": (1 - v) ** s.gamma, "focus": v**s.gamma, "uniform": 1.0}[s.weighting]
        between = [right[s.mediate_bn][start + i + k * n] for k in range(len(mediates))]
        total = total - torch.log(clean) - s.a * w * torch.log(attacked)
        if between:
            total = total - s.b * w * sum(torch.log(q) for q in between) / len(between)
    return total / n, nets


ARMS = [
    {"mediates": [], "weighting": "uniform"},
    {"mediates": []},
    {"weighting": "uniform"},
    {},
    {"weighting": "focus", "gamma": 2.0},
    {"weighting": "protect", "gamma": 0.5, "a": 0.7, "b": 0.3},
    {"mediates": [0.25, 0.5, 0.75], "mediate_bn": "main"},
    {"mediates": [0.3, 0.6], "mediate_bn": "own"},
]


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_the_whole_step_agrees_with_float64(arm):
    made = prepared(**arm)
    batch = batch_of()
    perturbed = adversarial(extract(made.model, "auxiliary"), batch_of(), made.settings.attack)
    mediates = [batch.images + m * (perturbed - batch.images) for m in made.settings.mediates]
    expected, nets = by_hand(made, batch, perturbed, mediates)
    loss, found, _ = gradients(made, batch_of())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    for name in ("network.0.weight", "network.3.weight", "network.6.weight", "network.11.weight", "network.11.bias"):
        gradient = sum(net.get_parameter(name).grad for net in nets.values())  # shared by all branches
        torch.testing.assert_close(found[name].double(), gradient, rtol=5e-3, atol=5e-5)
    for branch, net in nets.items():
        for place in (1, 4, 7):
            for what in ("weight", "bias"):
                torch.testing.assert_close(
                    found[f"network.{place}.branches.{branch}.{what}"].double(),
                    net.get_parameter(f"network.{place}.{what}").grad,
                    rtol=5e-3,
                    atol=5e-5,
                )


def logits_by_hand(made, images, branches):
    """The small network layer by layer in float64, batch norm by its definition.

    Args:
        images: (n, 1, 8, 8). branches: n names; rows of one share mean and variance where these are apart.

    Returns: logits (n, classes), and the leaves by the names of the method's parameters.
    """
    split = made.settings.batch_norm
    leaves = {name: p.detach().double().requires_grad_() for name, p in made.model.named_parameters()}
    groups = [list(range(len(images)))]
    if split == "statistics":
        groups = [[row for row, name in enumerate(branches) if name == of] for of in dict.fromkeys(branches)]
    x = copy.deepcopy(made.model.normalize).double()(images.double())
    for place, layer in enumerate(made.model.network):
        at = f"network.{place}"
        if isinstance(layer, nn.Conv2d):
            x = nn.functional.conv2d(x, leaves[f"{at}.weight"], stride=layer.stride, padding=layer.padding)
        elif isinstance(layer, nn.Linear):
            x = x @ leaves[f"{at}.weight"].T + leaves[f"{at}.bias"]
        elif isinstance(layer, nn.BatchNorm2d | SplitBatchNorm):
            rows = {}
            for group in groups:
                mean = x[group].mean((0, 2, 3), keepdim=True)[0]
                variance = ((x[group] - mean) ** 2).mean((0, 2, 3), keepdim=True)[0]
                for row in group:
                    inner = {"joint": "", "statistics": ".branches.main", "affine": f".branches.{branches[row]}"}[split]
                    weight, bias = (leaves[f"{at}{inner}.{what}"].view(-1, 1, 1) for what in ("weight", "bias"))
                    rows[row] = weight * (x[row] - mean) / torch.sqrt(variance + 1e-5) + bias
            x = torch.stack([rows[row] for row in range(len(x))])
        else:
            x = layer(x)
    return x, leaves


@pytest.mark.parametrize("split", ["joint", "statistics", "affine"])
@pytest.mark.parametrize("mediate_bn", ["auxiliary", "main"])
def test_what_the_branches_share_agrees_with_float64(split, mediate_bn):
    """One batch norm for all; statistics apart; affine parameters apart and the statistics of all rows together."""
    made = prepared(batch_norm=split, mediate_bn=mediate_bn)
    for module in made.model.modules():
        if split == "affine" and isinstance(module, SplitBatchNorm):
            module.branches["auxiliary"].weight.data.mul_(1.3)
            module.branches["auxiliary"].bias.data.add_(0.1)
    batch = batch_of()
    n = len(batch.labels)
    attacked = made.model if split == "joint" else extract(made.model, "auxiliary")
    perturbed = adversarial(copy.deepcopy(attacked), batch_of(), made.settings.attack)
    images = torch.cat([batch.images, perturbed, batch.images + 0.5 * (perturbed - batch.images)])
    logits, leaves = logits_by_hand(made, images, ["main"] * n + ["auxiliary"] * n + [mediate_bn] * n)
    right = torch.softmax(logits, 1)[range(3 * n), batch.labels.repeat(3)]
    expected = torch.zeros((), dtype=torch.float64)
    for clean, wrong, between in zip(right[:n], right[n : 2 * n], right[2 * n :], strict=True):
        weight = 1 - min(max(clean.item() - wrong.item(), 0.0), 1.0)
        expected = expected - (torch.log(clean) + weight * torch.log(wrong) + weight * torch.log(between)) / n
    loss, found, _ = gradients(made, batch_of())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    assert found.keys() == leaves.keys()
    for name, leaf in leaves.items():
        torch.testing.assert_close(found[name].double(), leaf.grad, rtol=5e-3, atol=5e-5, msg=name)


@pytest.mark.parametrize("weighting", ["protect", "focus"])
def test_weights_to_the_power_zero_are_uniform_bit_by_bit(weighting):
    flat = gradients(prepared(weighting=weighting, gamma=0.0), batch_of())
    uniform = gradients(prepared(weighting="uniform"), batch_of())
    assert torch.equal(flat[0], uniform[0])
    assert all(torch.equal(flat[1][name], gradient) for name, gradient in uniform[1].items())


def test_without_mediates_and_weights_it_is_advprop():
    advprop = arm_settings(load(DEFAULTS), "advprop")
    assert (advprop.mediates, advprop.weighting, advprop.batch_norm, advprop.a) == ([], "uniform", "full", 1.0)
    made = prepared(mediates=[], weighting="uniform")
    batch = batch_of()
    main, auxiliary = extract(made.model).train(), extract(made.model, "auxiliary").train()
    perturbed = adversarial(auxiliary, batch_of(), ATTACK)
    criterion = nn.CrossEntropyLoss()
    expected = criterion(main(batch.images), batch.labels) + criterion(auxiliary(perturbed), batch.labels)
    torch.testing.assert_close(gradients(made, batch_of())[0], expected.detach(), rtol=1e-6, atol=1e-6)


def test_without_weight_on_the_perturbed_it_deploys_what_standard_training_does():
    schedule = TrainingSettings(epochs=2, batch_size=8, lr=0.05)
    deployed = []
    for name, arm in (("advamd", {"a": 0.0, "b": 0.0}), ("standard", {})):
        made = method(name, network(), split_of(32), **arm)
        outcome = fit(made, split_of(32), schedule, resolve(ComputeSettings(device="cpu")), seed=1, validate=look)
        deployed.append(outcome.last)
    assert deployed[0].keys() == deployed[1].keys()
    for name, value in deployed[1].items():
        torch.testing.assert_close(deployed[0][name], value, rtol=1e-4, atol=1e-5)


def look(model):
    return {"validation_clean": 0.5, "validation_robust": 0.5}


def test_the_attack_sees_the_auxiliary_branch_only():
    made = prepared(mediates=[], attack=AttackSettings(steps=2, start="none"))
    batch = batch_of()
    assert not torch.equal(made._perturb(batch)[0], batch.images)
    for branch in ("main", "auxiliary"):
        blind = copy.deepcopy(made)
        for module in blind.model.modules():
            if isinstance(module, SplitBatchNorm):
                module.branches[branch].weight.data.zero_()  # an image no longer changes the output of that branch
        blind.route = next(m.route for m in blind.model.modules() if isinstance(m, SplitBatchNorm))
        assert torch.equal(blind._perturb(batch_of())[0], batch.images) == (branch == "auxiliary")


def test_joint_training_has_one_batch_norm_and_deploys_itself():
    made = method("advamd", batch_norm="joint")
    assert not any(isinstance(module, SplitBatchNorm) for module in made.model.modules())
    batch = batch_of()
    adversarial_images, mediates = made._perturb(batch_of())
    reference = copy.deepcopy(made.model).train()
    together = reference(torch.cat([batch.images, adversarial_images, *mediates])).split(6)
    losses = [nn.functional.cross_entropy(part, batch.labels, reduction="none") for part in together]
    weight = learning_ratio(losses[0], losses[1], "protect", 1.0)
    expected = (losses[0] + weight * (losses[1] + losses[2])).mean()
    torch.testing.assert_close(gradients(made, batch_of())[0], expected.detach(), rtol=1e-5, atol=1e-6)
    assert made.deploy(made.model) is made.model


@pytest.mark.parametrize("split", ["full", "statistics", "affine"])
def test_training_pulls_the_branches_apart_and_deploys_the_main_one(split):
    made = method("advamd", network(), split_of(48), batch_norm=split, task=TASK, attack=AttackSettings(steps=2))
    schedule = TrainingSettings(epochs=4, batch_size=12, lr=0.1)
    outcome = fit(made, split_of(48), schedule, resolve(ComputeSettings(device="cpu")), seed=1, validate=look)
    deployed = made.deploy(made.model)
    assert {name: value.shape for name, value in outcome.last.items()} == {
        name: value.shape for name, value in network().state_dict().items()
    }
    assert all(torch.equal(value, outcome.last[name]) for name, value in deployed.state_dict().items())
    assert models.parameter_count(deployed) == models.parameter_count(network())
    main, auxiliary = extract(made.model).eval(), extract(made.model, "auxiliary").eval()
    images = images_of(40, 9)
    assert torch.equal(deployed.eval()(images), main(images))
    assert (main(images) - auxiliary(images)).abs().max() > 1e-3
    if split != "affine":
        assert branch_gap(made.model, "auxiliary") > 1e-4
        assert outcome.history[-1]["branch_gap"] > 0


@pytest.mark.parametrize(
    ("name", "arm", "cost"),
    [
        ("standard", {}, 1),
        ("advamd", {"mediates": [], "weighting": "uniform"}, 7),  # AdvProp: five steps and two training passes
        ("advamd", {}, 8),
        ("advamd", {"mediates": [0.25, 0.5, 0.75]}, 10),
        ("advamd", {"path": "iterates"}, 8),
        ("advamd", {"perturbation": "noise"}, 3),
        ("fast_advprop", {}, 1.2),
    ],
)
def test_compute_is_counted(name, arm, cost):
    made = method(name, network(), split_of(20), **arm)
    schedule = TrainingSettings(epochs=1, batch_size=10, lr=0.01)
    passes = fit(
        made, split_of(20), schedule, resolve(ComputeSettings(device="cpu")), seed=0, validate=look
    ).passes  # fmt: skip
    assert passes["forward"] / passes["images"] == pytest.approx(cost)
    assert passes["backward"] / passes["images"] == pytest.approx(cost)


@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10"])
def test_the_arm_of_equal_compute_costs_what_advamd_costs(dataset):
    settings = load(DEFAULTS)
    epochs = settings.datasets[dataset].finetuning.epochs
    assert schedule(settings, dataset, "vanilla-equal-compute").epochs == 8 * epochs
    assert schedule(settings, dataset, "advamd").epochs == epochs
    assert schedule(settings, dataset, "advamd").lr == settings.datasets[dataset].finetuning.lr


@pytest.mark.parametrize("epochs", ["0x", "2.5x", "x", "many"])
def test_multiples_of_the_epochs_are_whole(epochs):
    arm = {"method": "standard", "training": {"epochs": epochs}}
    with pytest.raises(TurncoatError, match=r"arms\.mine\.training\.epochs"):
        schedule(load(DEFAULTS).model_copy(update={"arms": {"mine": arm}}), "digits", "mine")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 1))
def test_a_path_is_followed_from_end_to_end(corners, share):
    path = [torch.full((1, 1, 1, 1), corner) for corner in corners]
    point = along(path, torch.full((1, 1, 1, 1), share)).item()
    step = min(int(share * (len(corners) - 1)), len(corners) - 2)
    rest = share * (len(corners) - 1) - step
    assert point == pytest.approx(corners[step] + rest * (corners[step + 1] - corners[step]), abs=1e-5)
    assert 0 <= point <= 1


def test_mediates_lie_between_the_image_and_its_adversarial():
    batch = batch_of()
    for arm in (
        {"mediates": [0.0, 0.5, 1.0]},
        {"mediates": [0.0, 0.5, 1.0], "path": "iterates"},
        {"mediates": "random"},
    ):
        made = prepared(**arm)
        perturbed, mediates = made._perturb(batch_of())
        for mediate in mediates:
            assert TASK.threat.distance(mediate, batch.images).max() <= 0.08 + 1e-6
            assert 0 <= mediate.min() <= mediate.max() <= 1
        if len(mediates) == 3:
            assert torch.allclose(mediates[2], perturbed, atol=1e-6)
        if arm == {"mediates": [0.0, 0.5, 1.0]}:
            assert torch.equal(mediates[0], batch.images)
            assert torch.allclose(mediates[1], (batch.images + perturbed) / 2, atol=1e-6)
    shares = ((mediates[0] - batch.images) / (perturbed - batch.images)).nan_to_num(0).amax((1, 2, 3))
    assert len(set(shares.tolist())) == 6  # a share of its own for each image


def test_iterates_are_those_of_the_attack():
    made = prepared(mediates=[0.0, 1 / 3, 2 / 3, 1.0], path="iterates")
    net = extract(made.model, "auxiliary")
    full = made._perturb(batch_of())[1]
    for steps in (1, 2, 3):
        expected = adversarial(net, batch_of(), ATTACK.model_copy(update={"steps": steps}))
        torch.testing.assert_close(full[steps], expected, rtol=0, atol=1e-6)


def test_the_placebo_is_noise_of_the_same_size():
    made = prepared(perturbation="noise")
    perturbed, mediates = made._perturb(batch_of())
    noise = perturbed - batch_of().images
    inside = (perturbed > 0.01) & (perturbed < 0.99)
    assert TASK.threat.distance(perturbed, batch_of().images).max() <= 0.08 + 1e-6
    assert noise[inside].abs().mean() == pytest.approx(0.04, abs=0.006)  # uniform: half the radius
    assert torch.allclose(mediates[0], batch_of().images + noise / 2, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 30), st.floats(0, 30), st.floats(0, 4))
def test_learning_ratios(benign, attacked, gamma):
    losses = [torch.tensor([value], requires_grad=True) for value in (benign, attacked)]
    v = min(max(math.exp(-benign) - math.exp(-attacked), 0), 1)
    for weighting, expected in (("protect", (1 - v) ** gamma), ("focus", v**gamma), ("uniform", 1.0)):
        weight = learning_ratio(*losses, weighting, gamma)
        assert not weight.requires_grad
        assert 0 <= weight.item() <= 1
        if {"protect": 1 - v, "focus": v, "uniform": 1}[weighting] > 1e-3:  # below, a root magnifies the rounding
            assert weight.item() == pytest.approx(expected, abs=2e-3)


def test_amendment_aims_at_clean_accuracy():
    assert method_class("advamd").selection == method_class("fast_advprop").selection == "validation_clean"


@pytest.mark.parametrize("wrong", [{"mediates": [1.5]}, {"mediate_bn": "second"}, {"gama": 1.0}, {"a": -1.0}])
def test_bad_settings_are_named(wrong):
    settings = load(DEFAULTS).model_copy(update={"arms": {"mine": {"method": "advamd", **wrong}}})
    with pytest.raises(TurncoatError, match=f"arms.mine.{next(iter(wrong))}"):
        arm_settings(settings, "mine")


def test_fast_advprop_uses_one_backward_pass_for_attack_and_weights():
    made = method("fast_advprop", network(steps=2))
    batch = batch_of(10)
    nets = {name: double(extract(made.model, name)) for name in ("main", "auxiliary")}
    radius = 0.1 * made.settings.radius
    source = batch_of(10).generator
    started = type(TASK.threat)("linf", radius).random_start(batch.images[:2], source).requires_grad_()
    clean = torch.softmax(nets["main"](batch.images[2:]), 1)
    first = torch.softmax(nets["auxiliary"](started), 1)
    log = [torch.log(first[i, batch.labels[i]]) for i in range(2)]
    direction = torch.autograd.grad(-sum(log), started, retain_graph=True)[0].sign()
    moved = (started + radius * direction).detach()
    moved = torch.minimum(torch.maximum(moved, batch.images[:2] - radius), batch.images[:2] + radius).clamp(0, 1)
    second = torch.softmax(nets["auxiliary"](moved), 1)
    expected = -sum(torch.log(clean[i, batch.labels[2 + i]]) for i in range(8))
    expected = expected - 0.5 * sum(log) - 0.5 * sum(torch.log(second[i, batch.labels[i]]) for i in range(2))
    expected = expected / 10
    loss, found, _ = gradients(made, batch_of(10))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    gradient = sum(net.get_parameter("network.3.weight").grad for net in nets.values())
    torch.testing.assert_close(found["network.3.weight"].double(), gradient, rtol=5e-3, atol=5e-5)
