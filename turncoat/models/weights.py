"""Weights as safetensors: no code is executed, a checksum is verified, and the metadata rebuilds the module."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from turncoat.errors import TurncoatError
from turncoat.files import write_atomic
from turncoat.models.calibrator import Calibrated, PseudoLabelled
from turncoat.models.classifiers import Classifier
from turncoat.models.purifier import Pipeline, Purifier
from turncoat.models.quantised import Quantised
from turncoat.models.transforms import Transform

KINDS: dict[str, Callable[..., nn.Module]] = {  # spec["kind"] -> module(**rest of the spec)
    "classifier": Classifier,
    "calibrated": Calibrated,
    "pseudo_labelled": PseudoLabelled,
    "quantised": Quantised,
    "pipeline": Pipeline,
    "purifier": Purifier,
    "transform": Transform,
}


def build(spec: Mapping[str, Any]) -> nn.Module:
    """A fresh module from its spec, initialised from torch's global generator; specs inside it are built first."""
    rest = {
        name: build(value) if isinstance(value, Mapping) and "kind" in value else value for name, value in spec.items()
    }
    kind = rest.pop("kind", None)
    if kind not in KINDS:
        raise TurncoatError(f"kind {kind!r} of module is not defined; there are {', '.join(KINDS)}")
    return KINDS[kind](**rest)


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes: equal if and only if the weights are."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def parameter_count(module: nn.Module) -> int:
    """Number of parameters that the module carries when deployed."""
    return sum(parameter.numel() for parameter in module.parameters())


def save(path: Path | str, module: nn.Module, **info: Any) -> None:
    """Write a deployable module (one with a `.spec`) atomically; the same weights give the same bytes.

    Args:
        info: JSON values to keep beside the spec, such as the cell that made the file.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    header = {"spec": module.spec, "sha256": tensor_digest(tensors), **info}
    # safetensors keeps its metadata in a hash map without order: one entry keeps the bytes the same
    write_atomic(path, to_bytes(tensors, metadata={"turncoat": json.dumps(header, sort_keys=True)}))


def load(path: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """Rebuild the module that a weights file deploys, in eval mode.

    Raises:
        TurncoatError: not a safetensors file of turncoat (what it is instead is said), a checksum that does not match,
            tensors that do not fit.
    """
    remedy = "where `dvc repro` made it, delete it and run that again"
    try:
        if foreign := _foreign(Path(path)):
            raise TurncoatError(
                f"{path}: {foreign}, not a weights file that turncoat wrote; to evaluate it, load it into its network "
                "and call turncoat.evaluation.evaluate(model, images, labels, threat, suite)"
            )
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["turncoat"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise TurncoatError(f"{path}: no such weights file; `dvc repro` makes it") from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise TurncoatError(f"{path}: not a weights file that turncoat wrote ({error}); {remedy}") from error
    if tensor_digest(tensors) != header.get("sha256"):
        raise TurncoatError(f"{path}: the weights do not match their checksum: the file is damaged; {remedy}")
    module = build(header["spec"])
    expected = module.state_dict()
    wrong = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if name not in tensors or name not in expected or tensors[name].shape != expected[name].shape
    )
    if wrong:
        raise TurncoatError(
            f"{path}: {len(wrong)} tensors do not fit {header['spec']['kind']} (first: {wrong[0]}); {remedy}"
        )
    module.load_state_dict(tensors)
    return module.to(device).eval()


def _foreign(path: Path) -> str:
    """What a file is that others wrote; "" where turncoat may have written it. Nothing in it is executed."""
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"PK"):
        return "a zip archive, as torch.save and torch.jit.save write"
    if start.startswith(b"\x80"):
        return "a pickle, as old versions of torch.save write"
    if start.startswith(b"\x89HDF"):
        return "an HDF5 file, as Keras writes"
    try:
        with safe_open(path, framework="pt") as file:
            return "" if "turncoat" in (file.metadata() or {}) else "a safetensors file without a turncoat header"
    except (SafetensorError, OSError):
        return ""
