"""What comes in from outside, looked at in the first second: what cannot work is refused before any attack.

What is harmless is taken: arrays for tensors, lists of labels, a threat as a tuple, values a rounding away from [0, 1].
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turncoat.attacks import CORRUPTIONS, SHIFTS, Threat
from turncoat.attacks.threat import TOLERANCE
from turncoat.errors import TurncoatError
from turncoat.evaluation.outside import on_disk
from turncoat.evaluation.pristine import Pristine, drawing
from turncoat.evaluation.results import Flag
from turncoat.evaluation.suite import Suite, plan_suite
from turncoat.randomness import generator, seed_of

FEW = 2  # images of the first pass
ROWS = 500  # images looked at at a time: they may lie on the disk


def as_suite(given: Any, batch_size: Any = None) -> Suite:
    """A suite, or attacks by name as params.yaml writes them; with another `batch_size` where one is given."""
    if isinstance(batch_size, np.integer):
        batch_size = int(batch_size)
    if batch_size not in (None, "auto") and (type(batch_size) is not int or batch_size < 1):
        raise TurncoatError(f"batch_size: a number of images from 1, or auto, wanted (got {batch_size!r})")
    more = {} if batch_size is None else {"batch_size": batch_size}
    if isinstance(given, Suite):
        return replace(given, **more)
    if isinstance(given, Mapping):
        return plan_suite("given", given, **more)
    raise TurncoatError(
        f"suite: attacks by name, {{'pgd-20': {{'attack': 'pgd', 'steps': 20}}}}, or a Suite wanted (got {given!r}); "
        "a suite of params.yaml is build_suite(name, load().suites[name])"
    )


def as_threat(given: Any) -> Threat:
    """A threat, or (norm, epsilon)."""
    if isinstance(given, Threat):
        return given
    if isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 2:
        try:
            return Threat(*given)
        except ValueError as error:
            raise TurncoatError(str(error)) from error
    raise TurncoatError(f"threat: Threat('linf', 8 / 255) wanted, got {given!r}")


def as_images(given: Any, name: str = "images") -> Tensor:
    """(n, c, h, w) float32 in [0, 1]: the given tensor itself, but where it must be another."""
    images = given
    if isinstance(given, np.memmap) and given.dtype == np.float32 and min(given.strides) >= 0:
        images = on_disk(given)
    elif isinstance(given, np.ndarray) and given.dtype.kind in "fiu":
        images = torch.from_numpy(given.copy())
    if not isinstance(images, Tensor):
        raise TurncoatError(f"{name}: a float32 tensor (n, c, h, w) wanted, got {type(given).__name__}")
    if images.dtype != torch.float32 or images.dim() != 4 or not len(images):
        raise TurncoatError(f"{name}: float32 (n, c, h, w) wanted, got {images.dtype} {tuple(images.shape)}")
    images = images.clone() if images.is_inference() else images.detach()  # an attack follows gradients of its own
    low = min(float(part.min()) for part in images.split(ROWS))
    high = max(float(part.max()) for part in images.split(ROWS))
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        hint = "undo their normalisation: it belongs into the model"
        if high > 1 and low >= 0:
            hint = "divide them by 255" if high > 2 else "clip them: images.clamp(0, 1)"
        raise TurncoatError(f"{name}: values in [0, 1] wanted, these reach from {low:.9g} to {high:.9g}; {hint}")
    return images if low >= 0 and high <= 1 else images.clamp(0, 1)


def as_labels(given: Any, images: Tensor, name: str = "labels") -> Tensor:
    """(n,) int64 on the images' device, one class an image."""
    labels = given
    if isinstance(given, np.ndarray | list | tuple):
        labels = torch.as_tensor(np.asarray(given).copy())
    if isinstance(labels, Tensor) and labels.dtype in (torch.int16, torch.int32, torch.uint8):
        labels = labels.long()
    if not isinstance(labels, Tensor):
        raise TurncoatError(f"{name}: int64 ({len(images)},) wanted, got {type(given).__name__}")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise TurncoatError(f"{name}: int64 ({len(images)},) wanted, got {labels.dtype} {tuple(labels.shape)}")
    if int(labels.min()) < 0:
        raise TurncoatError(f"{name}: classes from 0 wanted, these reach down to {int(labels.min())}")
    return (labels.clone() if labels.is_inference() else labels).to(images.device)


def first_answer(pristine: Pristine, images: Tensor, labels: Tensor, seed: int) -> int:
    """Ask the network for two images and for one; what it must give is (n, classes) of a floating type.

    Returns: images that went through it.
    """
    tensors = [*pristine.kept.parameters(), *pristine.kept.buffers()]
    with torch.no_grad(), drawing(seed_of(seed, "entry")):
        counts = sorted({min(FEW, len(images)), 1})[::-1]
        for count in counts:
            given = images[:count].clone()
            try:
                answer = pristine.fresh()(given)
            except Exception as error:  # whatever somebody's network raises
                raise TurncoatError(_failed(error, given, tensors)) from error
            _refuse_answer(answer, count)
            pristine.spoils |= not torch.equal(given, images[:count])
    if answer.shape[1] < 2 or int(labels.max()) >= answer.shape[1]:
        shape = (len(images), answer.shape[1])
        wrong = "a class needs a logit of its own" if shape[1] < 2 else f"but labels reach up to {int(labels.max())}"
        hint = "; of one logit z make two: torch.cat([-z, z], 1) / 2" * (shape[1] < 2)
        raise TurncoatError(f"model: outputs {shape}, {wrong}{hint}")
    return sum(counts)


def _refuse_answer(answer: Any, count: int) -> None:
    hint = "wrap it in a module whose forward returns the logits (n, classes) alone"
    if isinstance(answer, Mapping):
        names = ", ".join(map(str, answer))
        raise TurncoatError(f"model: forward returned {type(answer).__name__} with {names}; {hint}: its `logits`, say")
    if isinstance(answer, list | tuple):
        parts = ", ".join(str(tuple(part.shape)) if hasattr(part, "shape") else type(part).__name__ for part in answer)
        raise TurncoatError(f"model: forward returned {type(answer).__name__} of {parts}; {hint}: its first, say")
    if not isinstance(answer, Tensor):
        raise TurncoatError(f"model: forward returned {type(answer).__name__}, no tensor of torch; {hint}")
    if answer.dim() != 2 or len(answer) != count:
        more = ": `squeeze` takes the batch away with one image" if answer.dim() < 2 else ": one row an image"
        raise TurncoatError(f"model: forward returned {tuple(answer.shape)} for {count} images; {hint}{more}")
    if not answer.is_floating_point():
        raise TurncoatError(f"model: forward returned {answer.dtype}; {hint}, not the classes that it chose")


def _failed(error: Exception, given: Tensor, tensors: Sequence[Tensor]) -> str:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()} - {torch.float32}
    places = {tensor.device.type for tensor in tensors} - {given.device.type}
    hint = ""
    if kinds:
        hint = f"; its weights are {', '.join(map(str, kinds))}, images float32: hand in model.float()"
    elif places:
        hint = f"; its weights are on {', '.join(places)}, the images on {given.device.type}: move one to the other"
    wanted = f"images {tuple(given.shape)} float32 in [0, 1]"
    return f"model: it could not be run on {wanted}: {type(error).__name__}: {said[:200]}{hint}"


def held_out_images(given: Any, images: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Images and labels apart from those tested, like them."""
    if not isinstance(given, Sequence) or len(given) != 2:
        raise TurncoatError(f"held_out: (images, labels) wanted, got {type(given).__name__}")
    apart = as_images(given[0], "held_out images")
    labels = as_labels(given[1], apart, "held_out labels")
    if apart.shape[1:] != images.shape[1:]:
        wanted = f"{tuple(images.shape[1:])} as of images"
        raise TurncoatError(f"held_out images: {wanted} wanted, got {tuple(apart.shape[1:])}")
    if int(labels.max()) >= classes:
        raise TurncoatError(f"held_out labels: they reach up to {int(labels.max())}, the network has {classes} classes")
    return apart, labels


def stored_images(
    suite: Suite, given: Mapping[str, Any] | None, images: Tensor, threat: Threat
) -> tuple[dict[str, Tensor], list[Flag]]:
    """The stored sets that the suite names, brought into the threat where they were made for a larger one.

    Returns: the sets, and a flag for each attack whose images were moved.
    """
    given, found, flags = given or {}, {}, []
    for attack, plan in suite.attacks.items():
        if plan.stored is None:
            continue
        if len(given.get(plan.stored, ())) < len(images):
            have = ", ".join(given) or "none"
            raise TurncoatError(
                f"attack {attack}: no {len(images)} stored images {plan.stored!r} of this data set; "
                f"there are {have}; name them under `perturbations` in params.yaml"
            )
        stored = torch.as_tensor(given[plan.stored])[: len(images)]
        if stored.shape != images.shape or stored.dtype != torch.float32:
            wanted = f"float32 {tuple(images.shape)}"
            raise TurncoatError(f"stored {plan.stored!r}: {wanted} wanted, got {stored.dtype} {tuple(stored.shape)}")
        parts, moved = [], 0
        for part, clean in zip(stored.split(500), images.split(500), strict=True):
            part = part.to(clean.device)
            slack = TOLERANCE * max(1.0, threat.epsilon)
            outside = ~(threat.distance(part, clean) <= threat.epsilon + slack) | ~((part >= 0) & (part <= 1)).all(
                dim=(1, 2, 3)
            )
            if bool(outside.any()):
                part = part.clone()
                part[outside] = threat.project(part[outside].nan_to_num(0.5), clean[outside])
                moved += int(outside.sum())
            parts.append(part)
        found[plan.stored] = torch.cat(parts) if moved else stored
        if moved:
            said = f"{moved} of {len(images)} stored images lay outside {threat.norm} {threat.epsilon:.4g}"
            flags.append(Flag("stored-moved", f"{said}: they were brought to its edge", blocks=False, attack=attack))
    return found, flags


def try_scenes(suite: Suite, images: Tensor) -> None:
    """Each shift and corruption of the suite on two images: some want grey or coloured ones."""
    known: dict[str, Mapping[str, Callable[..., Tensor]]] = {"shift": SHIFTS, "corruption": CORRUPTIONS}
    for kind, names in (("shift", suite.shifts), ("corruption", suite.corruptions)):
        for name in names:
            few = images[:FEW].clone()
            try:
                made = known[kind][name](few, suite.severities[-1], generator(0, "entry", device=images.device))
                said = "" if made.shape == few.shape else f"it returned {tuple(made.shape)}"
            except (RuntimeError, ValueError, TurncoatError) as error:
                said = next(iter(str(error).splitlines()), type(error).__name__)
            if said:
                wanted = f"{kind} {name} does not take images {tuple(images.shape[1:])} ({said[:120]})"
                raise TurncoatError(f"suite {suite.name}: {wanted}; leave it out")


def spoilt(pristine: Pristine) -> list[Flag]:
    """What was made up for, said once."""
    flags = []
    if pristine.spoils:
        said = "the network changes the images it is given; each pass got images of its own"
        flags.append(Flag("in-place", said, blocks=False))
    if not pristine.copies:
        said = "the network cannot be copied: verdicts are its own, with its weights and buffers put back before each"
        flags.append(Flag("not-copied", said, blocks=False))
    return flags
