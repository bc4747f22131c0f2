"""Networks that begin anew: what gives a verdict has seen nothing before it, whatever the attacks have asked."""

import inspect
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from turncoat.attacks.copies import copied
from turncoat.attacks.engine import reseeded, switch

FEW = 0.02  # share of the images that may answer otherwise: by rounding, at a step of a quantised network


class Pristine:
    """A network as it was handed in, in eval mode: kept unrun, and copied for each use.

    So neither memory, counters, caches nor changed weights reach a verdict, and nothing reaches the caller's module.
    One that cannot be copied is run itself, with its tensors put back before each use; `close` puts back all of it.

    Attributes:
        kept: the network that is copied. copies: whether it can be copied.
        seeded: whether `forward` takes `seeds`, one an image.
        spoils: whether it changes the images it is given in place; each pass then gets images of its own.
    """

    def __init__(self, model: nn.Module) -> None:
        model = getattr(model, "_orig_mod", model)  # of torch.compile, which would compile each copy again
        self.seeded, self.spoils, self.copies = _takes_seeds(model), False, True
        try:
            self.kept = copied(model)
        except Exception:  # there are as many errors as ways not to be copyable
            self.kept, self.copies = model, False
            self._modes = [(module, module.training) for module in model.modules()]
            self._tensors = [(value, value.detach().clone()) for value in (*model.parameters(), *model.buffers())]
        switch(self.kept, False)

    def fresh(self) -> nn.Module:
        """The network as it was at first."""
        if self.copies:
            made = copied(self.kept)
        else:
            made = self.kept
            self._restore()
        return Unspoilt(made) if self.spoils else made

    def close(self) -> None:
        """Put the caller's module back as it was, where it had to be run itself."""
        if not self.copies:
            self._restore()
            for module, training in self._modes:
                module.training = training

    @torch.no_grad()
    def _restore(self) -> None:
        for value, before in self._tensors:
            value.copy_(before)


class Unspoilt(nn.Module):
    """Gives a network that works in place images of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, images: Tensor, **given: Any) -> Tensor:
        logits: Tensor = self.model(images.clone(), **given)
        return logits


class Forgetful(nn.Module):
    """A network without a past: a fresh copy answers each question. So attacks meet what gives the verdicts."""

    def __init__(self, pristine: Pristine) -> None:
        super().__init__()
        self.pristine = pristine
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.pristine.fresh().requires_grad_(False)(images)
        return logits


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """All global generators (torch, numpy, Python) start from `seed`; afterwards they are as they were."""
    ours, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - a network may draw from it
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        with reseeded(seed):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numbers)  # noqa: NPY002


def apart(first: Tensor, second: Tensor) -> float:
    """How far two answers (n, classes) to the same images lie apart, in units of the usual gap between two logits.

    A constant that is added to all logits of an image does not count, nor do the worst of `FEW` images.
    """
    whole = torch.isfinite(first).all(1) & torch.isfinite(second).all(1)
    broken = ~whole & ~torch.isclose(first, second, equal_nan=True).all(1)
    one, other = (logits - logits.mean(1, keepdim=True) for logits in (first[whole], second[whole]))
    gaps = (one.amax(1, keepdim=True) - one).flatten()
    usual = float(gaps[gaps > 0].median()) if bool((gaps > 0).any()) else 1.0
    worst = torch.cat([(one - other).abs().amax(1) / usual, broken[broken] * torch.inf])
    places = worst.sort(descending=True).values
    return min(1e9, float(places[int(FEW * len(first))])) if len(places) > int(FEW * len(first)) else 0.0


def _takes_seeds(model: nn.Module) -> bool:
    try:
        return "seeds" in inspect.signature(model.forward).parameters
    except (TypeError, ValueError):  # TorchScript has no signature to look at
        return False
