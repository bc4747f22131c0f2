"""Networks and their weights files."""

import json
import pickle
import struct

import pytest
import torch

from turncoat import models
from turncoat.errors import TurncoatError
from turncoat.settings import MODELS

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 48, 64), (1, 65, 8)]


def make(model="small_cnn", shape=(1, 8, 8), classes=10):
    torch.manual_seed(0)
    return models.Classifier(model, classes, shape, [0.4] * shape[0], [0.2] * shape[0]).eval()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("model", ["small_cnn", "small_resnet", "resnet20", "resnet18", "mobilenet_v2", "vgg16"])
def test_every_network_takes_every_image_size(model, shape):
    network = make(model, shape)
    images = torch.rand(2, *shape, requires_grad=True)
    logits = network(images)
    assert logits.shape == (2, 10)
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("model", "parameters"),
    # published counts: torchvision's models less their ImageNet stems and heads; Zagoruyko & Komodakis, table 4;
    # He et al., table 6 (0.27M, 0.85M)
    [
        ("resnet18", 11_173_962),
        ("wide_resnet28_10", 36_479_194),
        ("wide_resnet34_10", 46_160_474),
        ("resnet20", 269_722),
        ("resnet56", 853_018),
        ("small_resnet", 308_650),
    ],
)
def test_parameter_counts_are_the_published_ones(model, parameters):
    with torch.device("meta"):
        network = models.Classifier(model, 10, (3, 32, 32), [0.5] * 3, [0.5] * 3)
    assert models.parameter_count(network) == parameters


@pytest.mark.parametrize(("model", "million"), [("small_resnet", 12.3), ("resnet20", 40.6), ("resnet56", 125.5)])
def test_multiply_adds_are_those_stated(model, million):
    network, macs = make(model, (3, 32, 32)), []

    def count(layer, _, output):
        macs.append(layer.weight.numel() * (output[0, 0].numel() if output.dim() == 4 else 1))

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    network(torch.rand(1, 3, 32, 32))
    assert round(sum(macs) / 1e6, 1) == million


def test_shortcut_a_takes_every_second_pixel_and_has_no_parameters():
    block = make("resnet20", (3, 32, 32)).network.layer2[0]
    features = torch.rand(1, 16, 9, 9)
    passed = block.shortcut(features)
    assert passed.shape == (1, 32, 5, 5)
    assert torch.equal(passed[:, 8:24], features[:, :, ::2, ::2])
    assert not passed[:, :8].any()
    assert not passed[:, 24:].any()
    assert not list(block.shortcut.parameters())


def test_wide_resnet_runs():
    assert make("wide_resnet28_10", (3, 32, 32))(torch.rand(1, 3, 32, 32)).shape == (1, 10)


def test_normalisation_is_the_first_layer():
    network = make()
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(network(images), network.network((images - 0.4) / 0.2))


def test_logits_are_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert make()(torch.rand(2, 1, 8, 8)).dtype == torch.float32


def test_names_are_those_of_the_settings():
    assert set(MODELS) == set(models.NETWORKS)


def test_too_small_images_and_unknown_models_are_refused():
    with pytest.raises(TurncoatError, match="at least 8×8"):
        make(shape=(1, 4, 4))
    with pytest.raises(TurncoatError, match="resnet19 is not defined; there are small_cnn"):
        make("resnet19")


def test_a_weights_file_rebuilds_its_network_and_is_the_same_twice(tmp_path):
    network, path = make(), tmp_path / "w.safetensors"
    models.save(path, network, cell={"dataset": "digits"})
    first = path.read_bytes()
    models.save(path, network, cell={"dataset": "digits"})
    assert path.read_bytes() == first
    loaded, images = models.load(path), torch.rand(3, 1, 8, 8)
    assert not loaded.training
    assert torch.equal(loaded(images), network(images))


def damaged(path, edit):
    content = bytearray(path.read_bytes())
    edit(content)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content.clear(),
        lambda content: content.__delitem__(slice(len(content) // 2, None)),
        lambda content: content.__setitem__(len(content) - 100, content[-100] ^ 1),
    ],
    ids=["empty", "truncated", "one bit"],
)
@pytest.mark.fault(4, "weights emptied, truncated, one bit flipped", "stops on the checksum, names the file")
def test_a_damaged_weights_file_stops(tmp_path, edit):
    path = tmp_path / "w.safetensors"
    models.save(path, make())
    damaged(path, edit)
    with pytest.raises(TurncoatError, match=r"w\.safetensors: .*dvc repro"):
        models.load(path)


@pytest.mark.fault(6, "a poisoned pickle named .safetensors", "refused, nothing executed")
def test_a_pickle_offered_as_weights_is_not_executed(tmp_path):
    path, trace = tmp_path / "w.safetensors", tmp_path / "executed"

    class Poison:
        def __reduce__(self):
            return (open, (str(trace), "w"))

    path.write_bytes(pickle.dumps(Poison()))
    with pytest.raises(TurncoatError, match="not a weights file"):
        models.load(path)
    assert not trace.exists()


@pytest.mark.fault(7, "a weights file that says 7 classes and holds 10", "stops, names the tensors that do not fit")
def test_weights_of_another_network_stop(tmp_path):
    path = tmp_path / "w.safetensors"
    models.save(path, make(classes=10))
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    inner = json.loads(header["__metadata__"]["turncoat"])
    inner["spec"]["classes"] = 7
    header["__metadata__"]["turncoat"] = json.dumps(inner)
    packed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(packed)) + packed + content[8 + size :])
    with pytest.raises(TurncoatError, match=r"2 tensors do not fit classifier \(first: network\."):
        models.load(path)


def test_missing_weights_name_the_remedy(tmp_path):
    with pytest.raises(TurncoatError, match="no such weights file"):
        models.load(tmp_path / "w.safetensors")
