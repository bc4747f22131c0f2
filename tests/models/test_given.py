"""Weights of others: found, read without running anything, fitted by name and shape."""

import copy
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from turncoat import models
from turncoat.errors import TurncoatError
from turncoat.files import sha256
from turncoat.models.given import fill, find, given_classifier, read_state
from turncoat.settings import DatasetSettings, validate

MEAN, STD = [0.4], [0.2]


def network(seed=0):
    torch.manual_seed(seed)
    return models.NETWORKS["small_cnn"](1, (8, 8), 10).eval()


def described(**baseline):
    schedule = {"epochs": 1, "lr": 0.1}
    return validate(
        DatasetSettings,
        {
            "data": {"source": "digits", "validation": 10, "test": 10},
            "threat": {"epsilon": 0.1},
            "model": "small_cnn",
            "baseline": baseline,
            "training": schedule,
            "finetuning": schedule,
        },
        "datasets.digits",
    )


def given(**baseline):
    return given_classifier(described(**baseline), 10, (1, 8, 8), MEAN, STD)


@pytest.fixture
def theirs(tmp_path):
    """A network and the file of its state dict, as torch writes it."""
    trained, path = network(7), tmp_path / "theirs.pth"
    torch.save(trained.state_dict(), path)
    return trained, path


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"epoch": 3, "state_dict": {f"module.model.{name}": value for name, value in state.items()}},
        lambda state: {"model": {"state_dict": state}, "optimizer": {}},
        lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
        lambda state: {name: value.double() for name, value in state.items()},
        lambda state: {name: value.half().float() for name, value in state.items()},
    ],
    ids=["plain", "DataParallel", "checkpoint", "nested", "old batch norm", "float64", "through half"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_read_however_it_is_wrapped(tmp_path, wrapped, zipped):
    trained, path = network(7), tmp_path / "w.th"
    torch.save(wrapped(trained.state_dict()), path, _use_new_zipfile_serialization=zipped)
    classifier, told = given(weights=str(path), normalisation="none")
    images = torch.rand(4, 1, 8, 8)
    assert not classifier.training
    torch.testing.assert_close(classifier(images), trained(images), atol=2e-2, rtol=0)
    assert next(classifier.parameters()).dtype == torch.float32
    assert told == {"weights": "w.th", "sha256": sha256(path), "normalisation": {"mean": [0.0], "std": [1.0]}}


def test_safetensors_of_others_and_of_this_study_whatever_they_are_called(tmp_path, theirs):
    trained, _ = theirs
    images = torch.rand(4, 1, 8, 8)
    save_file(trained.state_dict(), tmp_path / "w.bin")
    assert torch.equal(given(weights=str(tmp_path / "w.bin"), normalisation="none")[0](images), trained(images))
    ours = models.Classifier("small_cnn", 10, (1, 8, 8), [0.3], [0.6]).eval()
    models.save(tmp_path / "ours.safetensors", ours)
    classifier, told = given(weights=str(tmp_path / "ours.safetensors"))
    assert torch.equal(classifier(images), ours(images))
    assert told["normalisation"] == {"mean": [0.3], "std": [0.6]}, "the file's own"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda state: state.pop("0.weight"), r"1 missing: 0\.weight$"),
        (lambda state: state.update(extra=torch.ones(1)), r"1 not expected: extra$"),
        (lambda state: state.update({"0.weight": torch.ones(16, 3, 3, 3)}), "0.weight 16×3×3×3 for 16×1×3×3"),
        (lambda state: state.update({"0.weight": torch.full((16, 1, 3, 3), torch.nan)}), "0.weight .* not finite"),
        (lambda state: state.update({"0.weight": torch.ones(16, 1, 3, 3).to_sparse()}), "0.weight is no plain tensor"),
        (lambda state: state.clear(), "no state dict"),
        (lambda state: state.update(note="of mine"), "no state dict under state_dict"),
    ],
    ids=["missing", "unexpected", "misshapen", "not finite", "sparse", "empty", "not only tensors"],
)
@pytest.mark.fault(35, "weights with missing, unexpected, misshapen or broken entries", "refused, the keys named")
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, theirs, edit, said):
    state = copy.deepcopy(theirs[0].state_dict())
    edit(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(TurncoatError, match=said):
        given(weights=str(tmp_path / "w.pth"), normalisation="data")


def test_many_wrong_names_are_counted_and_the_first_told(theirs):
    state = {f"encoder.{name}": value for name, value in theirs[0].state_dict().items()} | {"head": torch.ones(1)}
    with pytest.raises(TurncoatError, match=r"of\.mine: .*17 missing: 0\.weight, .*, \.\.\.; 21 not expected: encoder"):
        fill(network(), state, "of.mine")


class _Poison:
    """A pickle that would make a file when it is loaded."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (open, (str(self.trace), "w"))


@pytest.mark.parametrize(
    "way", ["pickle", "torch.save", "legacy", "in a checkpoint", "whole module", "named safetensors"]
)
@pytest.mark.fault(35, "a pickle that runs code in the place of given weights", "refused, nothing executed")
def test_a_pickle_is_not_executed(tmp_path, theirs, way):
    trace = tmp_path / "executed"
    path = tmp_path / ("w.safetensors" if way == "named safetensors" else "w.pth")
    match way:
        case "pickle" | "named safetensors":
            path.write_bytes(pickle.dumps(_Poison(trace)))
        case "torch.save":
            torch.save(_Poison(trace), path)
        case "legacy":
            torch.save({"state_dict": _Poison(trace)}, path, _use_new_zipfile_serialization=False)
        case "in a checkpoint":
            torch.save({"state_dict": theirs[0].state_dict(), "args": _Poison(trace)}, path)
        case "whole module":
            torch.save(theirs[0], path)
    with pytest.raises(TurncoatError, match="nothing in it was executed") as caught:
        read_state(path)
    assert not trace.exists()
    assert "weights_only" not in str(caught.value), "torch's advice to trust the file is not passed on"


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 no archive", b"\x08\0\0\0\0\0\0\0{broken}", b"<html>not found</html>"]
)
def test_what_is_no_weights_file_is_refused_and_not_said_to_be_deletable(tmp_path, content):
    path = tmp_path / "mine.pth"
    path.write_bytes(content)
    with pytest.raises(TurncoatError, match=r"mine\.pth") as caught:
        read_state(path)
    assert "delete" not in str(caught.value)


def test_another_file_than_the_one_with_the_checksum_is_refused(theirs):
    with pytest.raises(TurncoatError, match=r"sha256 .* wants 0000"):
        given(weights=str(theirs[1]), sha256="0" * 64, normalisation="data")


def test_a_normalisation_that_nobody_tells_is_asked_for(theirs):
    with pytest.raises(TurncoatError, match="normalisation is missing"):
        given(weights=str(theirs[1]))
    with pytest.raises(TurncoatError, match="no library tells that of small_cnn"):
        given(weights=str(theirs[1]), normalisation="library")
    with pytest.raises(TurncoatError, match="normalisation of 3 channels for images of 1"):
        given(weights=str(theirs[1]), normalisation={"mean": [0.5] * 3, "std": [0.5] * 3})
    classifier, _ = given(weights=str(theirs[1]), normalisation="data")
    assert classifier.normalize.mean.item() == pytest.approx(0.4)


def test_where_a_weights_file_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"own": tmp_path / "own", "mirror": tmp_path / "mirror" / "networks", "here": tmp_path / "networks"}
    for place in [*places.values(), tmp_path]:
        place.mkdir(parents=True, exist_ok=True)
        (place / "w.pth").write_text("")
    monkeypatch.setenv("TURNCOAT_NETWORKS", str(places["own"]))
    monkeypatch.setenv("TURNCOAT_MIRROR", str(tmp_path / "mirror"))
    for place in places.values():
        assert find("w.pth").resolve() == place / "w.pth"
        os.remove(place / "w.pth")
    assert find("w.pth").resolve() == tmp_path / "w.pth"
    with pytest.raises(TurncoatError, match=r"weights none\.pth: no such file; looked for .*own.*mirror.*networks"):
        find("none.pth")
