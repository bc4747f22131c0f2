"""Weights that others trained, read into a network of this study; nothing in such a file is ever executed.

A file is a state dict as `torch.save` writes it, or safetensors, of turncoat's own making or another's. What is read is
compared name by name and shape by shape with what the network wants.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from turncoat.errors import TurncoatError
from turncoat.files import sha256
from turncoat.models.classifiers import Classifier
from turncoat.models.foreign import is_factory, library_normalisation, source_of
from turncoat.settings import DatasetSettings, NormalisationSettings

NETWORKS_FOLDER = "TURNCOAT_NETWORKS"
NESTED = ("state_dict", "model_state_dict", "model", "network", "net", "weights")  # where checkpoints keep theirs
NAMED = 5  # keys that a message names


def find(name: str) -> Path:
    """The weights file that params.yaml names.

    Looked for in the folder that TURNCOAT_NETWORKS names, in `networks` of the one that TURNCOAT_MIRROR names, in
    `networks/` of the repository, and as a path from the repository.

    Raises:
        TurncoatError: it is in none of these places; all are named.
    """
    folders = [Path("networks"), Path()]
    if mirror := os.environ.get("TURNCOAT_MIRROR"):
        folders.insert(0, Path(mirror).expanduser() / "networks")
    if own := os.environ.get(NETWORKS_FOLDER):
        folders.insert(0, Path(own).expanduser())
    places = [folder / Path(name).expanduser() for folder in folders]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(dict.fromkeys(map(str, places)))
    raise TurncoatError(f"weights {name}: no such file; looked for {looked}. {NETWORKS_FOLDER} may name its folder")


def read_state(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a weights file on the CPU, and what turncoat wrote beside them ({} in a file of others).

    Raises:
        TurncoatError: it is neither safetensors nor a state dict; or it holds objects, which are not read.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise TurncoatError(f"{path}: cannot be read ({error.strerror})") from error
    if start[8:9] == b"{":  # the JSON header after its length: safetensors, whatever the file is called
        try:
            with safe_open(path, framework="pt") as opened:
                about = json.loads((opened.metadata() or {}).get("turncoat", "{}"))
                return {name: opened.get_tensor(name) for name in opened.keys()}, about  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, ValueError) as error:
            raise TurncoatError(f"{path}: damaged safetensors ({error})") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or broken pickle may fail in any way; torch's own words advise to trust it
        raise TurncoatError(
            f"{path}: not a state dict that can be read without running code ({type(error).__name__}); nothing in it "
            "was executed. Save the weights alone: torch.save(model.state_dict(), path)"
        ) from error
    return _tensors(path, found), {}


def _tensors(path: Path | str, found: Any) -> dict[str, Tensor]:
    """The state dict in what a checkpoint holds: the whole, or the first of `NESTED` that is a mapping."""
    while isinstance(found, Mapping):
        if found and all(isinstance(value, Tensor) for value in found.values()):
            return {str(name): value.detach() for name, value in found.items()}
        inner = [found[key] for key in NESTED if isinstance(found.get(key), Mapping)]
        if not inner:
            there = ", ".join(map(str, list(found)[:NAMED])) or "nothing"
            raise TurncoatError(f"{path}: no state dict under {', '.join(NESTED)}; the file holds {there}")
        found = inner[0]
    raise TurncoatError(f"{path}: holds a {type(found).__name__}, a state dict of tensors by name is wanted")


def fill(network: nn.Module, state: Mapping[str, Tensor], source: Path | str) -> None:
    """Load `state` into `network` once every name and shape fits; prefixes that all names share are stripped.

    Batch norm's `num_batches_tracked`, which old files lack and nothing here reads, may be missing.

    Raises:
        TurncoatError: names that are missing, not expected or of another shape; tensors that are not plain and finite.
    """
    wanted = network.state_dict()
    given = _stripped(state, wanted)
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    faults = [
        ("missing", missing),
        ("not expected", [name for name in given if name not in wanted]),
        (
            "of another shape",
            [
                f"{name} {_shape(value)} for {_shape(wanted[name])}"
                for name, value in given.items()
                if name in wanted and value.shape != wanted[name].shape
            ],
        ),
    ]
    if any(names for _, names in faults):
        told = "; ".join(f"{len(names)} {what}: {_listed(names)}" for what, names in faults if names)
        raise TurncoatError(f"{source}: the weights do not fit the network: {told}")
    for name, value in given.items():
        if value.layout is not torch.strided or value.is_quantized or value.is_complex():
            raise TurncoatError(f"{source}: {name} is no plain tensor of real numbers")
        if not bool(torch.isfinite(value).all()):
            raise TurncoatError(f"{source}: {name} holds values that are not finite")
    network.load_state_dict({**wanted, **given})


def _stripped(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without the prefixes (`module.`, `model.`, ...) that all of its names share and the network's have not.

    Of all ways to strip, the one by which most names are wanted; the fewest prefixes go.
    """
    ways = [dict(state)]
    while len({name.partition(".")[0] for name in ways[-1]}) == 1 and all("." in name for name in ways[-1]):
        ways.append({name.partition(".")[2]: value for name, value in ways[-1].items()})
    return max(ways, key=lambda way: len(way.keys() & wanted.keys()))


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def given_classifier(
    settings: DatasetSettings, classes: int, shape: Sequence[int], mean: Sequence[float], std: Sequence[float]
) -> tuple[Classifier, dict[str, Any]]:
    """The baseline that a data set's settings give instead of having it trained.

    Args:
        classes, shape: logits, and (channels, height, width) of an image. mean, std: of the data's training images.

    Returns: the classifier in eval mode; the file's name and SHA-256 and the normalisation, for records.

    Raises:
        TurncoatError: no such file, another checksum than the settings', weights that do not fit, or a normalisation
            that neither settings nor file nor library tell.
    """
    baseline = settings.baseline
    assert baseline is not None
    path = find(baseline.weights)
    checksum = sha256(path)
    if baseline.sha256 not in (None, checksum):
        raise TurncoatError(f"{path}: sha256 {checksum}, but params.yaml wants {baseline.sha256}: another file")
    state, about = read_state(path)
    mean, std = _normalisation(settings, about.get("spec", {}), mean, std)
    classifier = Classifier(settings.model, classes, shape, mean, std, settings.model_args)
    fill(classifier.network, state, path)
    told = {"weights": path.name, "sha256": checksum, "normalisation": {"mean": list(mean), "std": list(std)}}
    return classifier.eval(), told


def checksums(settings: DatasetSettings) -> dict[str, str]:
    """Name -> SHA-256 of each file that a data set's network is made of: given weights, the file of a factory.

    What a factory's file imports is not looked at.

    Raises:
        TurncoatError: one of them is not there.
    """
    files: dict[str, Path] = {}
    if is_factory(settings.model):
        source = source_of(settings.model)
        if source is None or not source.is_file():
            raise TurncoatError(f"model {settings.model}: {source or 'its module'} is not there")
        files[settings.model] = source
    if settings.baseline:
        files[settings.baseline.weights] = find(settings.baseline.weights)
    return {name: sha256(file) for name, file in files.items()}


def _normalisation(
    settings: DatasetSettings, spec: Mapping[str, Any], mean: Sequence[float], std: Sequence[float]
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation that the weights were trained behind; `mean` and `std` are the data's."""
    assert settings.baseline is not None
    match settings.baseline.normalisation:
        case NormalisationSettings() as said:
            return said.mean, said.std
        case "data":
            return mean, std
        case "none":
            return [0.0] * len(mean), [1.0] * len(mean)
        case None if spec.get("mean") and spec.get("std"):
            return spec["mean"], spec["std"]
        case _ if library := library_normalisation(settings.model, len(mean)):
            return library
        case "library":
            raise TurncoatError(f"baseline.normalisation: no library tells that of {settings.model}; give mean and std")
    raise TurncoatError(
        "baseline.normalisation is missing, and neither file nor library tells it: give the mean and std per channel "
        "that the weights were trained behind, or data, or none"
    )
