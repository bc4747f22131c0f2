"""What all attacks share: a model held still, gradients for the input only, a count of what an attack cost."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

MODES = ("eval", "train")
HALF_SCALE = 1024.0  # keeps 99.9 % of the gradients' signs in float16, whose small values would vanish otherwise


@contextmanager
def attacked(model: nn.Module, mode: str = "eval", generator: torch.Generator | None = None) -> Iterator[nn.Module]:
    """Hold `model` still while it is attacked; afterwards all of it is as it was.

    Inside, the network is in `mode`, "eval" or "train", as its own `train` understands it: one that keeps batch norm
    on is attacked as it is used. Batch statistics, where they are used, do not move the running ones.
    Parameters ask for no gradient. A random network draws from a stream of its own, determined by `generator`
    (else by the global one): equal for the same generator, not the stream that scores the result afterwards.
    """
    if mode not in MODES:
        raise ValueError(f"mode: {mode!r} is unknown; choose one of {', '.join(MODES)}")
    before = [(module, module.training) for module in model.modules()]
    norms = [norm for norm in model.modules() if isinstance(norm, _NormBase) and norm.track_running_stats]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    held: list[_NormBase] = []
    state = torch.get_rng_state() if generator is None else generator.get_state()
    try:
        switch(model, mode == "train")
        held = [norm for norm in norms if norm.training]
        for norm in held:
            norm.track_running_stats = False
        for parameter in trainable:
            parameter.requires_grad_(False)
        with reseeded(int.from_bytes(hashlib.blake2b(state.numpy().tobytes(), digest_size=7).digest())):
            yield model
    finally:
        for module, training in before:
            if module.training != training:
                module.training = training
        for norm in held:
            norm.track_running_stats = True
        for parameter in trainable:
            parameter.requires_grad_(True)


def switch(model: nn.Module, training: bool) -> None:
    """`model.train(training)`; exported modules, which know one mode only, stay in theirs."""
    with suppress(NotImplementedError):
        model.train(training)


@contextmanager
def reseeded(seed: int) -> Iterator[None]:
    """Global generators, of the CPU and the current GPU, that start from `seed`; afterwards they are as they were."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would change every GPU of the machine
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        yield


def input_gradient(
    model: nn.Module, images: Tensor, loss: Callable[..., Tensor], *given: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the summed `loss(logits, *given)` for the images alone.

    Returns: gradient (n, ...) float32; losses (n,); logits (n, k), the last two detached.

    Works under the caller's autocast and inference mode. A network that cuts the gradient off gives zeros, for the
    evaluation to flag.
    Through `eot(..., average="loss")` loss and gradient are the means over the draws, and so are the logits.
    """
    with torch.inference_mode(False), torch.enable_grad():
        images = _plain(images).detach().requires_grad_()
        given = tuple(_plain(value) if isinstance(value, Tensor) else value for value in given)
        if getattr(model, "average", None) == "loss":
            drawn = model.drawn(images)  # type: ignore[operator]
            logits = drawn.mean(0)
            # draw by draw, so that a loss finds the rows that it keeps for each image
            losses = torch.stack([loss(one, *given) for one in drawn]).mean(0)
        else:
            logits = model(images)
            losses = loss(logits, *given)
        if not losses.requires_grad:
            return torch.zeros_like(images), losses.detach(), logits.detach()
        scale = HALF_SCALE if half(logits) else 1.0
        grads = torch.autograd.grad(losses.sum() * scale, images, allow_unused=True, materialize_grads=True)
    return grads[0] if scale == 1.0 else grads[0] / scale, losses.detach(), logits.detach()


def _plain(tensor: Tensor) -> Tensor:
    """`tensor`, or a copy that autograd may save, of one that was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def half(logits: Tensor) -> bool:
    """Whether the gradient passes through float16, also where the network hands out float32."""
    kind = logits.device.type
    cast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    return cast or logits.dtype == torch.float16


def class_gradients(model: nn.Module, images: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Gradients of each class's logit for the images: (k, n, ...) float32, and the logits (n, k).

    With `classes` (n, c) only those of the classes named for each image: (c, n, ...). One forward pass, one backward
    pass for each gradient.
    """
    with torch.inference_mode(False), torch.enable_grad():
        images = _plain(images).detach().requires_grad_()
        logits = model(images).float()
        chosen = logits if classes is None else logits.gather(1, classes)
        if not logits.requires_grad:
            return torch.zeros_like(images).expand(chosen.shape[1], *images.shape), logits
        sums = chosen.sum(0)
        keep = [
            torch.autograd.grad(one, images, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
            for one in sums
        ]
    return torch.stack(keep), logits.detach()


def fallen(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """(n,) bool: misclassified or, with `targets`, classified as these."""
    predicted = logits.argmax(1)
    return predicted != labels if targets is None else predicted == targets


def check(images: Tensor, labels: Tensor, *, targets: Tensor | None = None, **counts: int) -> None:
    """Refuse what an attack cannot take, without looking at values (which would stall the device)."""
    if images.dtype != torch.float32 or images.dim() < 2 or not len(images):
        raise ValueError(f"images: float32 (n, c, h, w) in [0, 1] wanted, got {images.dtype} {tuple(images.shape)}")
    for name, classes in (("labels", labels), ("targets", targets)):
        if classes is not None and (classes.dtype != torch.int64 or classes.shape != images.shape[:1]):
            got = f"{classes.dtype} {tuple(classes.shape)}"
            raise ValueError(f"{name}: int64 ({len(images)},) wanted, one class an image, got {got}")
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name}: {count!r} is not allowed; give a whole number of at least 1")


class Counter(nn.Module):
    """Wraps a network and counts the images sent forward and backward through it: what an attack cost."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        logits: Tensor = self.model(images)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)
