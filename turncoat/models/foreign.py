"""Networks that turncoat does not define: timm's and torchvision's by their names there, and factories of one's own.

A name of a library is looked up in the library's own list, so it stands for nothing else. A factory is code: it is
imported where params.yaml, the command line or a caller in Python names it, and never because a weights file does
(`turncoat.models.load`). No network is built with weights of its own: nothing is downloaded.
"""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from turncoat.errors import TurncoatError

# What would fetch or read weights, or take the place of what is fitted here.
OURS = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "weights",
    "weights_backbone", "num_classes", "in_chans",
)  # fmt: skip


def is_factory(model: object) -> bool:
    """Whether the name stands for code: `package.module:name` or `path/to/file.py:name`."""
    return isinstance(model, str) and ":" in model


def foreign(model: str, classes: int, shape: Sequence[int], args: Mapping[str, Any]) -> nn.Module:
    """The network of that name, for images (channels, height, width) and so many logits, randomly initialised.

    Raises:
        TurncoatError: there is no such network, it cannot be had for such images, or it returns anything but logits.
    """
    library, _, name = model.partition("/")
    try:
        if is_factory(model):
            network = _made(model, classes, shape, args)
        else:
            if taken := sorted(set(args) & set(OURS)):
                raise TurncoatError(f"model_args.{taken[0]}: not for {model}; weights are given by baseline.weights")
            network = {"timm": _timm, "torchvision": _torchvision}[library](name, classes, shape, args)
        network = network.float()
        _try(network, classes, shape)
    except TurncoatError as error:
        raise TurncoatError(f"model {model}: {error}") from error
    except Exception as error:  # of a library or a factory that does not take such images or arguments
        size = "×".join(map(str, shape))
        told = " ".join(str(error).split())
        raise TurncoatError(
            f"model {model}: cannot be had for images of {size} and {classes} classes: {type(error).__name__}: {told}"
        ) from error
    return network


def library_normalisation(model: str, channels: int) -> tuple[list[float], list[float]] | None:
    """Mean and deviation that the library's own weights were trained behind; None: it does not say."""
    library, _, name = model.partition("/")
    if library == "timm":
        cfg = _library("timm").get_pretrained_cfg(name)
        said = (cfg.mean, cfg.std) if cfg else None
    elif library == "torchvision" and not is_factory(model):
        transforms = _library("torchvision.models").get_model_weights(name).DEFAULT.transforms()
        said = (transforms.mean, transforms.std)
    else:
        said = None
    return (list(said[0]), list(said[1])) if said and len(said[0]) == channels else None


def source_of(model: str) -> Path | None:
    """The file that a factory's code lies in; None for all other networks. Nothing of it is run."""
    if not is_factory(model):
        return None
    place = model.rpartition(":")[0]
    if place.endswith(".py"):
        return _file(place)
    with _folder_on_path():
        found = importlib.util.find_spec(place)
    return Path(found.origin) if found and found.origin else None


def _file(place: str) -> Path:
    try:
        return Path(place).expanduser()
    except RuntimeError as error:
        raise TurncoatError(f"{place}: {error}") from error


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise TurncoatError(f"{error.name} is not installed; `pip install {error.name}`") from error


def _timm(name: str, classes: int, shape: Sequence[int], args: Mapping[str, Any]) -> nn.Module:
    timm = _library("timm")
    if not timm.is_model(name.partition(".")[0]):
        near = timm.list_models(f"{name[:6]}*")[:5]
        raise TurncoatError("timm has no network of this name" + (f"; it has {', '.join(near)}, ..." if near else ""))
    cfg = timm.get_pretrained_cfg(name)
    sized = {"img_size": tuple(shape[1:])} if cfg and cfg.fixed_input_size and "img_size" not in args else {}
    network: nn.Module = timm.create_model(name, num_classes=classes, in_chans=shape[0], **sized, **args)
    return network


def _torchvision(name: str, classes: int, shape: Sequence[int], args: Mapping[str, Any]) -> nn.Module:
    library = _library("torchvision.models")
    if name not in (there := library.list_models(module=library)):
        raise TurncoatError(f"torchvision has no classifier of this name; it has {', '.join(there[:5])}, ...")
    channels, height, width = shape
    if channels != 3:
        raise TurncoatError(f"torchvision's networks take 3 channels, the images have {channels}")
    fitted: dict[str, Any] = {}
    if name.startswith("vit_"):
        if height != width:
            raise TurncoatError(f"takes square images, these are {height}×{width}")
        fitted["image_size"] = height
    elif name.startswith("maxvit"):
        fitted["input_size"] = (height, width)
    elif name in ("googlenet", "inception_v3"):
        fitted |= {"aux_logits": False, "init_weights": True}  # their second heads make the output a tuple
    network: nn.Module = library.get_model(name, weights=None, num_classes=classes, **(fitted | dict(args)))
    return network


def _made(model: str, classes: int, shape: Sequence[int], args: Mapping[str, Any]) -> nn.Module:
    """What the factory makes: it gets `args`, and `classes` and `shape` where it has parameters of these names."""
    place, _, name = model.rpartition(":")
    module = _module(place)
    factory: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(factory):
        raise TurncoatError(f"{place} has no function or class {name}")
    takes = inspect.signature(factory).parameters
    told = {"classes": classes, "shape": tuple(shape)}
    network = factory(**({key: value for key, value in told.items() if key in takes} | dict(args)))
    if not isinstance(network, nn.Module):
        raise TurncoatError(f"returned a {type(network).__name__}, a torch.nn.Module is wanted")
    return network


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        with _folder_on_path():
            return importlib.import_module(place)
    path = _file(place).resolve()
    known = f"turncoat_factory_{path.stem}_{abs(hash(str(path)))}"  # once a process: its classes stay the same
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[known] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[known]
            raise
    return sys.modules[known]


@contextmanager
def _folder_on_path() -> Iterator[None]:
    """The current folder is looked in too, whichever way Python was started."""
    here = os.getcwd()
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


@torch.no_grad()
def _try(network: nn.Module, classes: int, shape: Sequence[int]) -> None:
    """Two grey images through the network, in eval mode; on the meta device nothing is computed."""
    first = next((tensor for tensor in network.state_dict().values()), torch.zeros(()))
    with torch.random.fork_rng(devices=[]):
        logits: Any = network.eval()(torch.full((2, *shape), 0.5, device=first.device))
    network.train()
    check_logits(logits)
    if logits.shape != (2, classes):
        raise TurncoatError(f"returns {tuple(logits.shape)} for two images, (2, {classes}) is wanted")


def check_logits(logits: Any) -> None:
    """Refuse what a network returns in place of one tensor.

    Raises:
        TurncoatError: a tuple, a list, a dict: what it is, and what is wanted.
    """
    if isinstance(logits, tuple | list | dict):
        raise TurncoatError(
            f"returns a {type(logits).__name__} of {len(logits)}; wrap it in a module that returns the logits alone"
        )
    if not isinstance(logits, Tensor):
        raise TurncoatError(f"returns a {type(logits).__name__}; a tensor of logits is wanted")
