"""Split batch norm: the same network at first, apart after training, plain and no larger when deployed."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.methods.small import images_of, network
from turncoat import models
from turncoat.models.dual_norm import SPLITS, SplitBatchNorm, branch_gap, extract, split_norms

BRANCHES = ("main", "auxiliary")


def trained(split):
    """A split network after steps in which the auxiliary images are darker and noisier than the clean ones."""
    net = network()
    route = split_norms(net, BRANCHES, split)
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for step in range(5):
        clean = images_of(8, step)
        labels = torch.arange(8) % 4
        with route(main=8, auxiliary=8):
            logits = net(torch.cat([clean, 0.3 * images_of(8, 50 + step)]))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, torch.cat([labels, labels.flip(0)])).backward()
        optimizer.step()
    return net, route


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("training", [True, False])
def test_at_first_each_branch_is_the_network_before(split, training):
    plain = network(steps=2)
    dual = copy.deepcopy(plain)
    route = split_norms(dual, BRANCHES, split)
    images = images_of(6)
    expected = plain.train(training)(images)
    for branch in BRANCHES:
        with route(**{branch: 6}):
            torch.testing.assert_close(copy.deepcopy(dual).train(training)(images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("split", SPLITS)
def test_branches_differ_after_training_and_swapping_them_shows(split):
    net, route = trained(split)
    net.eval()
    images = images_of(32, 7)
    with route(auxiliary=32):
        swapped = net(images)
    main = net(images)
    assert (main - swapped).abs().max() > 1e-3
    torch.testing.assert_close(extract(net).eval()(images), main, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(extract(net, "auxiliary").eval()(images), swapped, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("split", SPLITS)
def test_the_deployed_network_is_plain_and_of_the_size_before(split, tmp_path):
    net, _ = trained(split)
    deployed = extract(net)
    before = network()
    assert models.parameter_count(deployed) == models.parameter_count(before)
    assert [(name, value.shape) for name, value in deployed.state_dict().items()] == [
        (name, value.shape) for name, value in before.state_dict().items()
    ]
    assert not any(isinstance(module, SplitBatchNorm) for module in deployed.modules())
    models.save(tmp_path / "deployed.safetensors", deployed)
    images = images_of(5)
    assert torch.equal(models.load(tmp_path / "deployed.safetensors")(images), deployed.eval()(images))


def test_deploying_leaves_the_trained_network_as_it_was():
    net, route = trained("full")
    state = copy.deepcopy(net.state_dict())
    deployed = extract(net)
    with torch.no_grad():
        for parameter in deployed.parameters():
            parameter.zero_()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    with route(auxiliary=4):
        net.eval()(images_of(4))


def test_one_pass_over_both_is_two_passes():
    net, route = trained("full")
    net.zero_grad()
    clean, perturbed = images_of(6, 1), images_of(6, 2)
    apart = {branch: extract(net, branch).train() for branch in BRANCHES}
    expected = torch.cat([apart["main"](clean), apart["auxiliary"](perturbed)])
    with route(main=6, auxiliary=6):
        logits = net.train()(torch.cat([clean, perturbed]))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    expected.square().sum().backward()
    gradient = apart["main"].network[0].weight.grad + apart["auxiliary"].network[0].weight.grad
    torch.testing.assert_close(net.network[0].weight.grad, gradient, rtol=1e-3, atol=1e-4)
    for branch in BRANCHES:  # and the running statistics have moved alike
        after, alone = extract(net, branch).network[1], apart[branch].network[1]
        torch.testing.assert_close(after.running_mean, alone.running_mean)
        torch.testing.assert_close(after.running_var, alone.running_var)


def test_images_of_one_branch_leave_the_other_alone():
    net = network()
    route = split_norms(net, BRANCHES)
    norm = net.network[1].branches
    with route(auxiliary=8):
        net.train()(images_of(8))
    assert norm["main"].num_batches_tracked == 0
    assert norm["auxiliary"].num_batches_tracked == 1
    assert torch.equal(norm["main"].running_mean, torch.zeros(16))


def test_what_a_split_shares_stays_shared():
    net, _ = trained("statistics")
    main, auxiliary = net.network[1].branches["main"], net.network[1].branches["auxiliary"]
    assert main.weight is auxiliary.weight
    assert not torch.equal(main.running_mean, auxiliary.running_mean)
    copied = copy.deepcopy(net).network[1].branches
    assert copied["main"].weight is copied["auxiliary"].weight
    assert models.parameter_count(net) == models.parameter_count(network())

    net, _ = trained("affine")
    main, auxiliary = extract(net).network[1], extract(net, "auxiliary").network[1]
    assert torch.equal(main.running_mean, auxiliary.running_mean)
    assert not torch.equal(main.weight, auxiliary.weight)
    assert branch_gap(net, "auxiliary") == 0


def test_the_gap_is_in_units_of_the_main_deviation():
    net = network()
    split_norms(net, BRANCHES)
    assert branch_gap(net, "auxiliary") == 0
    for module in net.modules():
        if isinstance(module, SplitBatchNorm):
            module.branches["main"].running_var.fill_(4.0)
            module.branches["auxiliary"].running_mean.fill_(-3.0)
    assert branch_gap(net, "auxiliary").item() == pytest.approx(1.5, rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=3, max_size=3), order=st.permutations(["main", "auxiliary", "own"]))
def test_rows_keep_their_order(sizes, order):
    norm = nn.Sequential(nn.BatchNorm2d(1)).eval()
    route = split_norms(norm, ["main", "auxiliary", "own"])
    for shift, name in enumerate(("main", "auxiliary", "own")):
        norm[0].branches[name].bias.data.fill_(shift)
    expected = [value for name, size in zip(order, sizes, strict=True)
                for value in [float(("main", "auxiliary", "own").index(name))] * size]  # fmt: skip
    with route(**dict(zip(order, sizes, strict=True))):
        assert norm(torch.zeros(sum(sizes), 1, 1, 1)).flatten().tolist() == expected


def test_the_route_comes_back_after_a_fault():
    net = network()
    route = split_norms(net, BRANCHES)
    with pytest.raises(RuntimeError), route(main=3, auxiliary=4):
        net(images_of(6))
    assert route.parts[0][0] == "main"
    assert len(route.parts) == 1


def test_what_cannot_be_split_is_said():
    with pytest.raises(ValueError, match="no BatchNorm2d"):
        split_norms(nn.Sequential(nn.Conv2d(1, 1, 1)), BRANCHES)
    with pytest.raises(ValueError, match="full, statistics, affine"):
        split_norms(network(), BRANCHES, "half")
    with pytest.raises(ValueError, match="deployed"):
        split_norms(network(), ["auxiliary"])
    with pytest.raises(ValueError, match="affine parameters"):
        split_norms(nn.Sequential(nn.BatchNorm2d(2, affine=False)), BRANCHES, "affine")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_every_network_can_be_split(name):
    net = models.Classifier(name, 4, (3, 32, 32), [0.5] * 3, [0.2] * 3).eval()
    images = torch.rand(2, 3, 32, 32, generator=generator())
    with torch.no_grad():
        expected = net(images)
        norms = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
        route = split_norms(net, BRANCHES)
        assert sum(isinstance(module, SplitBatchNorm) for module in net.modules()) == norms
        with route(main=1, auxiliary=1):
            torch.testing.assert_close(net(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_segmentation_and_detection_networks_can_be_split():
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    images = torch.rand(2, 3, 64, 64, generator=generator())
    segmenter = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3).eval()
    detector = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3).eval()
    with torch.no_grad():
        expected = segmenter(images)["out"]
        boxes = detector(list(images))[0]["boxes"]
        route = split_norms(segmenter, BRANCHES)
        with route(main=1, auxiliary=1):
            torch.testing.assert_close(segmenter(images)["out"], expected, rtol=1e-4, atol=1e-5)
        route = split_norms(detector, BRANCHES)
        with route(auxiliary=2):
            torch.testing.assert_close(detector(list(images))[0]["boxes"], boxes, rtol=1e-3, atol=1e-3)
    assert (
        extract(detector).state_dict().keys()
        == ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3).state_dict().keys()
    )


def generator():
    return torch.Generator().manual_seed(3)


class Tied(nn.Module):
    """The same batch norm under two parents, each with a convolution of its own."""

    def __init__(self):
        super().__init__()
        norm = nn.BatchNorm2d(4)
        self.first = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), norm)
        self.second = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), norm)

    def forward(self, images):
        return self.second(self.first(images).relu())


def in_one_parent():
    norm = nn.BatchNorm2d(4)
    return nn.Sequential(nn.Conv2d(4, 4, 1), norm, nn.ReLU(), nn.Conv2d(4, 4, 1), norm)


def shared_parent():
    block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    return nn.Sequential(block, nn.ReLU(), block)


def norms_of(net, kind):
    return [module for _, module in net.named_modules(remove_duplicate=False) if isinstance(module, kind)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("make", [Tied, in_one_parent, shared_parent])
def test_a_norm_in_two_places_stays_one(make, split):
    torch.manual_seed(0)
    plain = make()
    net = copy.deepcopy(plain)
    route = split_norms(net, BRANCHES, split)
    places = norms_of(net, SplitBatchNorm)
    assert len(places) == 2
    assert places[0] is places[1]
    inside = {id(module) for module in places[0].modules()}
    assert all(id(norm) in inside for norm in norms_of(net, nn.BatchNorm2d))  # none is left as it was
    more = {"full": 8, "statistics": 0, "affine": 8}[split]  # one more weight and bias of four channels, not two
    assert models.parameter_count(net) == models.parameter_count(plain) + more

    images = torch.rand(6, 4, 5, 5, generator=generator())
    expected = copy.deepcopy(plain).train()
    torch.testing.assert_close(net.train()(images), expected(images))
    deployed = extract(net)
    assert models.parameter_count(deployed) == models.parameter_count(plain)
    assert len(norms_of(deployed, nn.BatchNorm2d)) == 2
    assert len({id(norm) for norm in norms_of(deployed, nn.BatchNorm2d)}) == 1
    assert deployed.state_dict().keys() == plain.state_dict().keys()
    for name, value in expected.state_dict().items():  # both passes through the shared norm have moved its statistics
        torch.testing.assert_close(deployed.state_dict()[name], value)
    with route(main=2, auxiliary=4):
        both = net.eval()(images)
    torch.testing.assert_close(both[:2], deployed.eval()(images[:2]))
    torch.testing.assert_close(both[2:], extract(net, "auxiliary").eval()(images[2:]))


def normalised_by_hand(features, groups, weights, biases, eps=1e-5):
    """Batch norm in float64 by its definition.

    Args:
        features: (n, c, h, w). groups: lists of rows that share mean and variance. weights, biases: (c,), one a row.
    """
    out = [None] * len(features)
    for rows in groups:
        members = torch.stack([features[row] for row in rows])
        for row in rows:
            channels = []
            for c in range(features.shape[1]):
                values = members[:, c].reshape(-1)
                mean = values.sum() / len(values)
                variance = ((values - mean) ** 2).sum() / len(values)
                scaled = (features[row, c] - mean) / torch.sqrt(variance + eps)
                channels.append(weights[row][c] * scaled + biases[row][c])
            out[row] = torch.stack(channels)
    return torch.stack(out)


@pytest.mark.parametrize("split", SPLITS)
def test_who_shares_what_by_the_definition_in_float64(split):
    """Two clean rows and three perturbed ones of another mean and spread; statistics, affine parameters, gradients.

    full: neither is shared. statistics: each branch its own statistics, one weight and bias. affine: mean and variance
    over all five rows, each branch its own weight and bias.
    """
    drawn = torch.randn(5, 3, 4, 4, generator=generator(), dtype=torch.float64)
    drawn[2:] = 3 * drawn[2:] + 5
    net = nn.Sequential(nn.BatchNorm2d(3).double()).train()
    route = split_norms(net, BRANCHES, split)
    layer = net[0]
    own = BRANCHES if split != "statistics" else ("main",)
    with torch.no_grad():
        for place, name in enumerate(own):
            layer.branches[name].weight.copy_(torch.tensor([1.0, 0.5, 2.0]) + place)
            layer.branches[name].bias.copy_(torch.tensor([0.0, 0.3, -0.4]) - place)
    target = torch.randn(5, 3, 4, 4, generator=generator(), dtype=torch.float64)

    found_input = drawn.clone().requires_grad_()
    with route(main=2, auxiliary=3):
        found = net(found_input)
    (found * target).sum().backward()

    leaves = {
        name: [getattr(layer.branches[name], what).detach().clone().requires_grad_() for what in ("weight", "bias")]
        for name in own
    }
    of_row = [leaves["main"]] * 2 + [leaves[own[-1]]] * 3
    groups = [[0, 1, 2, 3, 4]] if split == "affine" else [[0, 1], [2, 3, 4]]
    expected_input = drawn.clone().requires_grad_()
    expected = normalised_by_hand(expected_input, groups, [w for w, _ in of_row], [b for _, b in of_row])
    (expected * target).sum().backward()

    exact = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(found, expected, **exact)
    torch.testing.assert_close(found_input.grad, expected_input.grad, **exact)
    for name in own:
        for leaf, what in zip(leaves[name], ("weight", "bias"), strict=True):
            torch.testing.assert_close(getattr(layer.branches[name], what).grad, leaf.grad, **exact)

    kept = [layer.shared] if split == "affine" else [layer.branches["main"], layer.branches["auxiliary"]]
    for rows, norm in zip(groups, kept, strict=True):
        values = drawn[rows].transpose(0, 1).flatten(1)
        torch.testing.assert_close(norm.running_mean, 0.1 * values.mean(1), **exact)
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * values.var(1, unbiased=True), **exact)
