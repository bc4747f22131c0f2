"""What is no module and no tensor: a bare function to be judged by its answers, a DataLoader, an array on the disk."""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from turncoat.errors import TurncoatError
from turncoat.evaluation.results import Flag
from turncoat.evaluation.suite import Suite


class BlackBox(nn.Module):
    """A function from images to logits as a module: asked without gradients. A bare function is never copied.

    The function gets the tensor (n, c, h, w) float32 in [0, 1] and returns logits (n, classes), a tensor or an array.
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner = function if isinstance(function, nn.Module) else None  # which is copied like any network
        self._asked = lambda images: function(images)  # copies of a closure are the closure: a client is shared

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        """What the function says, as a tensor on the images' device where it is an array or a tensor."""
        found = self._asked(images) if self.inner is None else self.inner(images)
        if isinstance(found, np.ndarray):
            found = torch.from_numpy(np.ascontiguousarray(found))
        return found.detach().to(images.device) if isinstance(found, Tensor) else found


def as_network(model: Any, suite: Suite, black_box: bool = False) -> tuple[nn.Module, bool, Suite, list[str]]:
    """The network as a module; whether it is a black box; what of `suite` it can meet; the names of the rest.

    Raises:
        TurncoatError: no network; or attacks by gradients on a bare function without leave to drop them.
    """
    if isinstance(model, nn.Module) and not black_box:
        return model, False, suite, []
    if not callable(model) or isinstance(model, type):
        hint = "; hand in an instance of it" if isinstance(model, type) else ""
        raise TurncoatError(
            f"model: a torch.nn.Module, or a function from images to logits, wanted (got {model!r}){hint}"
        )
    left_out = [name for name, plan in suite.attacks.items() if not plan.blind]
    rest = {name: plan for name, plan in suite.attacks.items() if plan.blind}
    beside = [what for what in ("radii", "universal") if getattr(suite, what)]
    if (left_out or beside) and not black_box:
        raise TurncoatError(
            f"suite {suite.name}: {', '.join([*left_out, *beside])} need gradients, and a bare function has none; "
            "leave them out, or say black_box=True; square, transfer and rotate-translate need none"
        )
    if not rest:
        raise TurncoatError(
            f"suite {suite.name}: no attack is left for a black box; add one: {{'square': {{'attack': 'square'}}}}"
        )
    return BlackBox(model), True, replace(suite, attacks=rest, radii=(), universal={}), [*left_out, *beside]


def unseen(blind: bool, left_out: list[str]) -> list[Flag]:
    """What must be said of a black box: no gradient was followed, so it may fall to those who have gradients."""
    if not blind:
        return []
    rest = f"; left out: {', '.join(left_out)}" if left_out else ""
    said = f"only answers were seen, no gradient was followed: whoever has gradients may find more{rest}"
    return [Flag("black-box", said, blocks=True)]


def is_loader(images: Any) -> bool:
    """Whether it is a DataLoader."""
    return isinstance(images, DataLoader)


def collected(loader: DataLoader[Any], labels: Any) -> tuple[Tensor, Tensor]:
    """All images and labels of a DataLoader, the images in a temporary file: memory is bounded by a batch.

    Raises:
        TurncoatError: labels beside the loader, batches that are no pairs of images and labels, or no batch.
    """
    if labels is not None:
        raise TurncoatError("labels: None wanted beside a DataLoader, which brings its own")
    classes: list[Tensor] = []
    shape: tuple[int, ...] = ()
    with tempfile.TemporaryFile(prefix="turncoat-images-") as file:  # the array below keeps it alive
        for batch in loader:
            if not isinstance(batch, list | tuple) or len(batch) != 2 or not all(isinstance(p, Tensor) for p in batch):
                raise TurncoatError("images: batches (images, labels) wanted of a DataLoader, two tensors each")
            images, these = batch
            if images.dtype != torch.float32 or images.dim() != 4 or shape not in ((), tuple(images.shape[1:])):
                raise TurncoatError(
                    f"images: float32 (n, c, h, w) of one size wanted, a batch is {images.dtype} {tuple(images.shape)}"
                )
            shape = tuple(images.shape[1:])
            file.write(images.detach().cpu().contiguous().numpy().tobytes())
            classes.append(these.detach().cpu())
        if not classes:
            raise TurncoatError("images: the DataLoader gave no batch")
        every = torch.cat(classes)
        file.flush()
        return on_disk(np.memmap(file, np.float32, "r+", shape=(len(every), *shape))), every


def on_disk(images: NDArray[np.float32]) -> Tensor:
    """A tensor over an array on the disk: pages come as they are read, and nothing is written to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(images)
