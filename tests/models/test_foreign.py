"""Networks by the names of timm and torchvision, and factories of one's own; and files that name code."""

import json

import pytest
import torch
from torch import nn

from turncoat import models
from turncoat.attacks import Threat, pgd
from turncoat.attacks.folded import folded
from turncoat.errors import TurncoatError
from turncoat.models.dual_norm import check_splits, extract, split_norms
from turncoat.models.foreign import library_normalisation, source_of
from turncoat.models.given import given_classifier
from turncoat.settings import DatasetSettings, validate

TIMM = ["timm/resnet10t", "timm/test_resnet.r160_in1k", "timm/test_byobnet", "timm/test_efficientnet"]
NO_BATCH_NORM = ["timm/test_vit", "timm/test_convnext"]
SHAPE = (3, 32, 32)
THREE = {"kind": "classifier", "classes": 7, "shape": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}

MINE = """
import torch
from pathlib import Path
from torch import nn

Path(__file__).with_name("executed").touch()

def build(classes, shape, width=4):
    return nn.Sequential(nn.Conv2d(shape[0], width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(width, classes))

class Pair(nn.Module):
    def forward(self, images):
        return images.mean((1, 2, 3)), images

class Several(nn.Module):
    def forward(self, images):
        return {"logits": images.flatten(1)[:, :7]}

class TwoWhenTrained(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 7)
    def forward(self, images):
        logits = self.head(images.mean((2, 3)))
        return (logits, logits) if self.training else logits

def five():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 5))

def doubles():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 7)).double()

def nothing():
    return 3

def fails():
    raise RuntimeError("of its own")
"""


def make(model, shape=SHAPE, **args):
    torch.manual_seed(0)
    return models.Classifier(model, 7, shape, [0.4] * shape[0], [0.2] * shape[0], args).eval()


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with a user's module in it, and the name under which nothing has imported it yet."""
    name = f"mine_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 64, 48)])
@pytest.mark.parametrize("model", TIMM + NO_BATCH_NORM)
def test_a_timm_network_is_fitted_to_the_images_and_rebuilt_from_its_file(model, shape, tmp_path):
    if model in NO_BATCH_NORM and shape[1] == 28:
        shape = (1, 32, 32)  # these two cannot be had for 28 pixels
    network, images = make(model, shape), torch.rand(3, *shape)
    logits = network(images)
    assert logits.shape == (3, 7)
    assert torch.equal(logits, network.network((images - 0.4) / 0.2)), "normalisation stays the first layer"
    models.save(tmp_path / "w.safetensors", network)
    assert torch.equal(models.load(tmp_path / "w.safetensors")(images), logits)
    adversarial = pgd(network, images, logits.argmax(1), Threat("linf", 0.1), steps=2, start="none")
    assert (adversarial - images).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize("model", ["torchvision/resnet18", "torchvision/googlenet", "torchvision/vit_b_32"])
def test_a_torchvision_network_is_fitted_too(model):
    with torch.device("meta"):
        network = models.Classifier(model, 7, (3, 64, 64), [0.4] * 3, [0.2] * 3)
    assert network.train()(torch.rand(2, 3, 64, 64, device="meta")).shape == (2, 7)


@pytest.mark.parametrize(
    ("model", "shape", "args", "said"),
    [
        ("timm/resnet10x", SHAPE, {}, "timm has no network of this name; it has resnet10t"),
        ("timm/resnet18", SHAPE, {"pretrained": True}, "model_args.pretrained: not for timm/resnet18"),
        ("timm/resnet18", SHAPE, {"checkpoint_path": "x.pth"}, "model_args.checkpoint_path"),
        ("timm/resnet18", SHAPE, {"wings": 2}, "RuntimeError|TypeError"),
        ("timm/test_vit", (3, 8, 8), {}, "cannot be had for images of 3×8×8"),
        ("torchvision/resnet19", SHAPE, {}, "torchvision has no classifier of this name"),
        ("torchvision/fcn_resnet50", SHAPE, {}, "torchvision has no classifier of this name"),
        ("torchvision/resnet18", (1, 32, 32), {}, "take 3 channels, the images have 1"),
        ("torchvision/vit_b_32", (3, 64, 48), {}, "square images"),
        ("torchvision/resnet18", SHAPE, {"weights": "DEFAULT"}, "model_args.weights"),
        ("torchvision/alexnet", SHAPE, {}, "cannot be had for images of 3×32×32"),
    ],
)
def test_what_a_library_cannot_do_is_refused_in_one_line(model, shape, args, said):
    with pytest.raises(TurncoatError, match=said) as caught:
        make(model, shape, **args)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"model {model}: ")


def test_the_library_tells_its_normalisation():
    imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert library_normalisation("timm/resnet10t", 3) == imagenet
    assert library_normalisation("torchvision/resnet18", 3) == imagenet
    assert library_normalisation("timm/resnet10t", 1) is None
    assert library_normalisation("small_cnn", 3) is None


def test_weights_for_a_library_network_are_given_in_one_setting(tmp_path):
    theirs = make("timm/test_resnet.r160_in1k").network
    torch.save({f"module.{name}": value for name, value in theirs.state_dict().items()}, tmp_path / "w.pth")
    settings = validate(
        DatasetSettings,
        {
            "data": {"source": "cifar10", "validation": 10},
            "threat": {"epsilon": 0.1},
            "model": "timm/test_resnet.r160_in1k",
            "baseline": {"weights": str(tmp_path / "w.pth")},
            "training": {"epochs": 1, "lr": 0.1},
            "finetuning": {"epochs": 1, "lr": 0.1},
        },
        "datasets.mine",
    )
    classifier, told = given_classifier(settings, 7, SHAPE, [0.1] * 3, [0.1] * 3)
    assert told["normalisation"] == {"mean": [0.5] * 3, "std": [0.5] * 3}, "what timm says of these weights"
    images = torch.rand(2, *SHAPE)
    torch.testing.assert_close(classifier(images), theirs((images - 0.5) / 0.5))


# ------------------------------------------------------------------------------------------------ batch norm, folding


@pytest.mark.parametrize("split", ["full", "statistics"])
@pytest.mark.parametrize("model", TIMM)
def test_dual_batch_norm_on_a_timm_network(model, split):
    network, images = make(model), torch.rand(6, *SHAPE)
    before = network(images)
    route = split_norms(network, ("main", "auxiliary"), split)
    assert torch.equal(network(images), before), "each branch begins as a copy"
    network.train()
    with route(auxiliary=6):
        network(images)
    network.eval()
    assert torch.equal(network(images), before), "the main branch has seen nothing"
    with route(auxiliary=6):
        assert not torch.allclose(network(images), before)
    plain = extract(network)
    assert torch.equal(plain(images), before)
    assert models.parameter_count(plain) == models.parameter_count(make(model))


@pytest.mark.parametrize("model", NO_BATCH_NORM)
def test_a_network_without_batch_norm_cannot_be_split(model):
    with pytest.raises(ValueError, match="no BatchNorm2d"):
        check_splits(make(model))


def test_batch_norm_that_activates_too_does_not_share_statistics():
    check_splits(make("timm/resnet10t"), "affine")
    with pytest.raises(ValueError, match="BatchNormAct2d, more than batch norm; choose full or statistics"):
        check_splits(make("timm/test_efficientnet"), "affine")


@pytest.mark.parametrize("model", TIMM + NO_BATCH_NORM)
def test_a_folded_timm_network_answers_the_same(model):
    network, images = make(model), torch.rand(4, *SHAPE)
    for module in network.modules():  # statistics and scales that folding has to carry over
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
    fast = folded(network, images)
    torch.testing.assert_close(fast(images), network(images), atol=1e-4, rtol=1e-4)
    norms = [module for module in fast.modules() if isinstance(module, nn.BatchNorm2d)]
    if model in ("timm/resnet10t", "timm/test_resnet.r160_in1k"):
        assert fast is not network
        used = {str(node.target) for node in fast.graph.nodes if node.op == "call_module"}
        assert not [name for name, module in fast.named_modules() if module in norms and name in used]


# ---------------------------------------------------------------------------------------------------- one's own code


def test_a_factory_by_module_or_file_gets_what_it_asks_for(mine):
    by_module, by_file = make(f"{mine}:build", width=6), make(f"{mine}.py:build", width=6)
    images = torch.rand(2, *SHAPE)
    assert torch.equal(by_module(images), by_file(images))
    assert by_module.network[0].out_channels == 6
    assert source_of(f"{mine}:build").name == source_of(f"{mine}.py:build").name == f"{mine}.py"
    assert next(make(f"{mine}:doubles").parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Pair", "returns a tuple of 2; wrap it"),
        ("Several", "returns a dict of 1; wrap it"),
        ("five", r"returns \(2, 5\) for two images, \(2, 7\) is wanted"),
        ("nothing", "returned a int, a torch.nn.Module is wanted"),
        ("fails", "RuntimeError: of its own"),
        ("absent", "has no function or class absent"),
    ],
)
@pytest.mark.fault(
    33, "a network of one's own that returns a tuple, a dict, too few logits, nothing", "one line that says so"
)
def test_what_a_factory_makes_wrongly_is_said_in_one_line(mine, name, said):
    with pytest.raises(TurncoatError, match=said) as caught:
        make(f"{mine}:{name}")
    assert "\n" not in str(caught.value)


def test_a_network_that_returns_more_in_training_is_told_apart(mine):
    network = make(f"{mine}:TwoWhenTrained")
    assert network(torch.rand(2, *SHAPE)).shape == (2, 7)
    with pytest.raises(TurncoatError, match="returns a tuple of 2"):
        network.train()(torch.rand(2, *SHAPE))


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(TurncoatError, match="No module named 'nowhere'"):
        make("nowhere.at_all:build")


@pytest.mark.fault(35, "weights whose metadata name code", "refused; run only where params.yaml names the same")
def test_a_weights_file_never_names_code_that_is_run(mine, tmp_path):
    path = tmp_path / "w.safetensors"
    network = make(f"{mine}:build")
    models.save(path, network)
    images = torch.rand(2, *SHAPE)
    hostile = "hostile_module"
    (tmp_path / f"{hostile}.py").write_text(MINE)
    (tmp_path / "executed").unlink()
    for name in (f"{hostile}:build", f"{hostile}.py:build", "os:system", "builtins:exec"):
        _rename(path, network, name)
        for trusted in ((), {f"{mine}:build"}, {"timm/resnet18"}):
            with pytest.raises(TurncoatError, match=f"names code, {name}, which is not run"):
                models.load(path, trusted=trusted)
    assert not (tmp_path / "executed").exists()
    _rename(path, network, f"{mine}:build")
    assert torch.equal(models.load(path, trusted={f"{mine}:build"})(images), network(images))


@pytest.mark.parametrize("inside", ["calibrated", "quantised", "pseudo_labelled"])
def test_code_that_a_spec_names_deep_inside_is_not_run_either(mine, inside):
    spec = THREE | {"model": f"{mine}:build"}
    outer = {"calibrated": {"epsilon": 0.1}, "pseudo_labelled": {"epsilon": 0.1}, "quantised": {"weights": 8}}[inside]
    wrapped = {"kind": inside, "classifier": spec, **outer}
    with pytest.raises(TurncoatError, match="names code"):
        models.build(wrapped)
    assert models.factories(wrapped) == {f"{mine}:build"}
    assert models.build(wrapped, models.factories(wrapped))(torch.rand(2, *SHAPE)).shape == (2, 7)


@pytest.mark.parametrize(
    "spec",
    [
        THREE | {"model": ["os:system"]},
        THREE | {"model": "timm/hf-hub:someone/theirs"},
        THREE | {"model": "timm/resnet18", "args": {"pretrained": True}},
        {"kind": "classifier", "model": "small_cnn"},
        THREE | {"model": "small_cnn", "classes": "many"},
        {"kind": "os.system", "command": "touch executed"},
        {"kind": "calibrated", "classifier": 3, "epsilon": 0.1},
        [1, 2],
    ],
    ids=["not a name", "a hub's", "a download", "too little", "no number", "another kind", "no module", "a list"],
)
def test_hostile_metadata_end_in_one_line(spec, tmp_path):
    path, network = tmp_path / "w.safetensors", make("small_cnn")
    models.save(path, network)
    _rewrite(path, network, spec)
    with pytest.raises(TurncoatError, match=r"w\.safetensors: "):
        models.load(path)


def _rename(path, network, model):
    _rewrite(path, network, network.spec | {"model": model})


def _rewrite(path, network, spec):
    """The file with another spec in its metadata; checksum and tensors stay right."""
    from safetensors.torch import save_file

    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    header = {"spec": spec, "sha256": models.tensor_digest(tensors)}
    save_file(tensors, path, metadata={"turncoat": json.dumps(header)})
