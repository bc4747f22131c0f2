"""Weights as safetensors: no code is executed, a checksum is verified, and the metadata rebuilds the module."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
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
from turncoat.models.foreign import is_factory
from turncoat.models.purifier import Pipeline, Purifier
from turncoat.models.quantised import Quantised
from turncoat.models.transforms import Transform


def dense_network(task: str) -> Callable[..., nn.Module]:
    """The class of the networks of a task, which is imported when one is made: torchvision with it."""

    def make(*args: Any, **rest: Any) -> nn.Module:
        from turncoat.models.detection import Detector
        from turncoat.models.segmentation import Segmenter

        return Segmenter(*args, **rest) if task == "segmentation" else Detector(*args, **rest)

    return make


KINDS: dict[str, Callable[..., nn.Module]] = {  # spec["kind"] -> module(**rest of the spec)
    "classifier": Classifier,
    "segmenter": dense_network("segmentation"),
    "detector": dense_network("detection"),
    "calibrated": Calibrated,
    "pseudo_labelled": PseudoLabelled,
    "quantised": Quantised,
    "pipeline": Pipeline,
    "purifier": Purifier,
    "transform": Transform,
}


def build(spec: Mapping[str, Any], trusted: Collection[str] = ()) -> nn.Module:
    """A fresh module from its spec, initialised from torch's global generator; specs inside it are built first.

    Args:
        trusted: factories (`package.module:name`) that may be run; those that params.yaml or the caller names.

    Raises:
        TurncoatError: an unknown kind, a factory that is not trusted, or settings that the module does not take.
    """
    rest = {
        name: build(value, trusted) if isinstance(value, Mapping) and "kind" in value else value
        for name, value in spec.items()
    }
    kind = rest.pop("kind", None)
    if kind not in KINDS:
        raise TurncoatError(f"kind {kind!r} of module is not defined; there are {', '.join(KINDS)}")
    if is_factory(model := rest.get("model")) and model not in trusted:
        raise TurncoatError(
            f"names code, {model}, which is not run on a file's word; it is where params.yaml (datasets.<name>.model), "
            "the command line, or `trusted` of turncoat.models.load names the same"
        )
    try:
        return KINDS[kind](**rest)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise TurncoatError(f"not settings of a {kind}: {error}") from error


def factories(spec: Mapping[str, Any]) -> set[str]:
    """The factories that a spec names, anywhere in it."""
    inside = [factories(value) for value in spec.values() if isinstance(value, Mapping)]
    own = {spec["model"]} if is_factory(spec.get("model")) else set()
    return own.union(*inside)


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
    # copies: two names of one tensor (tied weights) are two entries
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in module.state_dict().items()
    }
    header = {"spec": module.spec, "sha256": tensor_digest(tensors), **info}
    # safetensors keeps its metadata in a hash map without order: one entry keeps the bytes the same
    write_atomic(path, to_bytes(tensors, metadata={"turncoat": json.dumps(header, sort_keys=True)}))


def load(path: Path | str, device: torch.device | str = "cpu", trusted: Collection[str] = ()) -> nn.Module:
    """Rebuild the module that a weights file deploys, in eval mode.

    Args:
        trusted: factories that the file may name, see `build`: what the reader says, never the file.

    Raises:
        TurncoatError: not a safetensors file of turncoat (what it is instead is said), a checksum that does not match,
            tensors that do not fit, a file that names code which is not trusted.
    """
    remedy = "if this study made it, `dvc repro` makes it anew"  # it may be a user's own: never "delete it"
    try:
        if foreign := _foreign(Path(path)):
            raise TurncoatError(
                f"{path}: {foreign}, not a weights file that turncoat wrote; to evaluate it, name its network "
                f"too: `python -m turncoat.evaluation --model resnet20 --weights {path}` (docs/own-network.md); to "
                "train from it, name it as datasets.<name>.baseline.weights in params.yaml (docs/networks.md)"
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
    try:
        module = build(header["spec"], trusted)
    except (TurncoatError, KeyError, TypeError, AttributeError) as error:
        raise TurncoatError(f"{path}: {error}") from error
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
        start = file.read(9)
    # a safetensors file begins with the length of its header, whose bytes may be any, and the header is JSON
    if start[8:] == b"{":
        start = b""
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
