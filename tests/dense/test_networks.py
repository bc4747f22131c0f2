"""Networks for segmentation and detection: shapes, torchvision's own losses, gradients, what can be split and saved."""

import copy

import pytest
import torch
from torch.nn import functional

from tests.dense.small import LARGE, SMALL, TASKS, batch_of, network, scenes
from turncoat import models
from turncoat.data.targets import VOID
from turncoat.errors import TurncoatError
from turncoat.models.dual_norm import extract, split_norms

EVERY = [(task, model) for task in TASKS for model in (SMALL[task], *LARGE[task])]


@pytest.mark.parametrize(("task", "model"), EVERY)
def test_each_network_learns_splits_and_comes_back_from_its_file(task, model, tmp_path):
    side = 40 if model in SMALL.values() else 64
    net, batch = network(task, model, side=side), batch_of(task, 2, side=side)
    assert net.spec["model"] == model
    net.train()
    before = len(net.state_dict())
    route = split_norms(net, ("main", "auxiliary"))
    with route(auxiliary=2):
        losses = net.losses(net(batch.images), batch.labels)
    losses.mean().backward()
    assert losses.shape == (2,)
    assert bool(torch.isfinite(losses).all())
    assert sum(float(p.grad.abs().sum()) for p in net.parameters() if p.grad is not None) > 0
    plain = extract(net).eval()
    assert len(plain.state_dict()) == before
    models.save(tmp_path / "net.safetensors", plain)
    again = models.load(tmp_path / "net.safetensors")
    with torch.no_grad():
        assert torch.equal(again(batch.images), plain(batch.images))
        found = plain.found(plain(batch.images))
    assert len(found) == 2


@pytest.mark.parametrize("model", ["small_detector", *LARGE["detection"]])
def test_the_loss_of_an_image_is_torchvisions_of_a_batch_of_it(model):
    side = 40 if model == "small_detector" else 64
    net, batch = network("detection", model, side=side).train(), batch_of("detection", 4, side=side)
    batch.labels[3] = -1.0  # an image without a box
    with torch.no_grad():
        outputs = net(batch.images)
    mine = net.losses(outputs, batch.labels)
    for place, boxed in enumerate(net.boxed(batch.labels)):
        head = {name: values[place : place + 1] for name, values in net.parts(outputs).items()}
        if net.fcos:
            theirs = net.network.compute_loss([boxed], head, [net.anchors], net.levels)
        elif net.ssd:
            matched = torch.full((len(net.anchors),), -1)
            if len(boxed["boxes"]):
                from torchvision.ops import box_iou

                matched = net.network.proposal_matcher(box_iou(boxed["boxes"], net.anchors))
            theirs = net.network.compute_loss([boxed], head, [net.anchors], [matched])
        else:
            theirs = net.network.compute_loss([boxed], head, [net.anchors])
        assert float(mine[place]) == pytest.approx(float(sum(theirs.values())), rel=1e-5)


def test_the_small_detector_agrees_with_torchvisions_own_forward_pass():
    """torchvision's whole path, transform included, on images of its own size."""
    net, batch = network("detection").train(), batch_of("detection", 3)
    whole = copy.deepcopy(net.network)
    whole.transform.min_size, whole.transform.max_size, whole.transform.size_divisible = (40,), 40, 1
    whole.transform.image_mean, whole.transform.image_std = [0.0], [1.0]
    for place in range(3):
        given = net.normalize(batch.images[place : place + 1])
        net.train()
        theirs = sum(whole([given[0]], net.boxed(batch.labels[place : place + 1])).values())
        mine = net.losses(net(batch.images[place : place + 1]), batch.labels[place : place + 1])
        assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_the_loss_of_a_mask_is_the_mean_over_pixels_that_are_not_void():
    net, batch = network("segmentation").eval(), batch_of("segmentation", 3)
    masks = batch.labels.clone()
    masks[1, :, 20:] = VOID
    logits = net(batch.images)
    losses = net.losses(logits, masks)
    for place in range(3):
        pixels = masks[place] != VOID
        right = logits[place].log_softmax(0).gather(0, masks[place].long().clamp_max(10)[None])[0]
        assert float(losses[place]) == pytest.approx(-float(right[pixels].mean()), rel=1e-5)
    assert torch.equal(net.averaged(net.pixel_losses(logits, masks), masks), losses)
    assert float(losses[0]) == pytest.approx(float(functional.cross_entropy(logits[:1], masks[:1].long())), rel=1e-5)


@pytest.mark.parametrize(("task", "model"), [("segmentation", "small_segmenter"), ("detection", "small_detector"),
                                             ("detection", "retinanet_resnet50_fpn"),
                                             ("detection", "ssdlite320_mobilenet_v3_large")])  # fmt: skip
def test_gradients_against_finite_differences(task, model):
    """Of each image's loss for its pixels, in float64."""
    side = 40 if model in SMALL.values() else 64
    net, batch = network(task, model, side=side).double().eval(), batch_of(task, 2, side=side)
    net.forward = lambda images: _wide(net, images)
    targets = batch.labels.double() if task == "detection" else batch.labels
    images = batch.images.double().requires_grad_()
    loss = net.losses(net(images), targets)
    gradient = torch.autograd.grad(loss.sum(), images)[0]
    direction = torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step = 1e-7  # a longer one crosses corners of the rectifiers
    with torch.no_grad():
        up, down = (net.losses(net(images + sign * step * direction), targets) for sign in (1, -1))
    slopes = (up - down) / (2 * step)
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), slopes, rtol=2e-4, atol=1e-7)


def _wide(net, images):
    """The forward pass without its step to float32."""
    if hasattr(net, "columns"):
        said = net.network.head(net._features(images))
        return torch.cat([said[name] for name in net.columns], 2)
    return net.network(net.normalize(images))


def test_an_unknown_network_or_keyword_is_refused():
    data = scenes("segmentation")
    kind = (len(data.classes), data.shape, data.mean, data.std)
    for task, model, args, told in (
        ("segmentation", "fcn_resnet5", {}, "fcn_resnet5 is not defined; there are small_segmenter"),
        ("detection", "fcn_resnet50", {}, "fcn_resnet50 is not defined; there are small_detector"),
        ("segmentation", "small_segmenter", {"a": 1}, "small_segmenter takes none"),
        ("segmentation", "fcn_resnet50", {"colour": 1}, "fcn_resnet50 takes weights_backbone alone"),
        ("detection", "fcos_resnet50_fpn", {"weights": "DEFAULT"}, "heads of other classes"),
    ):
        with pytest.raises(TurncoatError, match=told):
            models.OF_TASK[task](model, *kind, args)


def test_a_detector_refuses_sides_that_its_anchors_would_not_fit():
    """torchvision pads such images; unpadded, its anchors and features part."""
    kind = (10, (1, 44, 40), [0.1], [0.2])
    models.OF_TASK["detection"]("small_detector", *kind)
    for model, size, told in (
        ("small_detector", (42, 40), "images of 42×40 pixels: small_detector takes sides that are multiples of 4"),
        ("fcos_resnet50_fpn", (64, 80), "multiples of 32; set image_size"),
    ):
        with pytest.raises(TurncoatError, match=told):
            models.OF_TASK["detection"](model, 10, (1, *size), [0.1], [0.2])
    with pytest.raises(TurncoatError, match="its batch norm frozen"):
        models.OF_TASK["detection"](
            "fcos_resnet50_fpn", 10, (3, 64, 64), [0.1] * 3, [0.2] * 3, {"weights_backbone": "DEFAULT"}
        )


@pytest.mark.parametrize("side", [40, 44, 64])
def test_the_anchors_lie_where_the_features_are(side):
    """One an anchor place, a stride apart, up to the last column and row."""
    net = models.OF_TASK["detection"]("small_detector", 10, (1, side, side), [0.1], [0.2])
    stride = net.network.backbone.trunk.stride
    centres = (net.anchors[:, :2] + net.anchors[:, 2:]) / 2
    assert sorted(set(centres[:, 0].tolist())) == [float(place) for place in range(0, side, stride)]
