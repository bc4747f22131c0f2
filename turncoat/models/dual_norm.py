"""Batch norm with branches: clean and perturbed images normalised apart, one of them deployed.

Xie et al., "Adversarial Examples Improve Image Recognition", CVPR 2020 (AdvProp): adversarial images have other
statistics, so they get an auxiliary batch norm, and only the main one is used at test time. Any module that holds
`nn.BatchNorm2d` can be split: a classifier, a detector, a segmentation network.

    route = split_norms(network, ("main", "auxiliary"))
    with route(auxiliary=8):          # all 8 images through the auxiliary branch
        network(perturbed)
    with route(main=8, auxiliary=8):  # one pass; the first 8 of the batch are clean, the rest perturbed
        network(torch.cat([clean, perturbed]))
    deployed = extract(network)       # plain batch norm again, the size of the network before
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

MAIN = "main"
SPLITS = ("full", "statistics", "affine")
Norm = TypeVar("Norm", bound=nn.Module)


class Route:
    """Which rows of a batch go through which branch; shared by all norms of one network. Main, unless told."""

    def __init__(self) -> None:
        self.parts: tuple[tuple[str, int], ...] = ((MAIN, 0),)

    @contextmanager
    def __call__(self, **rows: int) -> Iterator[None]:
        """Send so many rows, in this order, through the branches named; they must add up to the batch."""
        before = self.parts
        self.parts = tuple(rows.items())
        try:
            yield
        finally:
            self.parts = before


class _Affine(nn.Module):
    """Scale and shift of each channel: what is left of a branch whose statistics are shared."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().clone())
        self.bias = nn.Parameter(norm.bias.detach().clone())

    def forward(self, normalized: Tensor) -> Tensor:
        return torch.addcmul(self.bias.view(-1, 1, 1), normalized, self.weight.view(-1, 1, 1))


class SplitBatchNorm(nn.Module):
    """One `nn.BatchNorm2d` made several, each a copy of it at first.

    Args:
        norm: the layer to split. branches: their names. route: of the whole network.
        split: "full" gives each branch statistics and affine parameters of its own; "statistics" shares the affine
            parameters; "affine" shares the statistics, in training those of all rows of a batch together.
    """

    def __init__(self, norm: nn.BatchNorm2d, branches: Sequence[str], split: str, route: Route) -> None:
        super().__init__()
        self.route = route
        self.shared: nn.BatchNorm2d | None = None
        if split == "affine":
            self.shared = copy.deepcopy(norm)
            self.shared.affine = False
            self.shared.weight = self.shared.bias = None  # type: ignore[assignment]
            self.branches = nn.ModuleDict({name: _Affine(norm) for name in branches})
            return
        self.branches = nn.ModuleDict({name: copy.deepcopy(norm) for name in branches})
        if split == "statistics":
            for branch in self.branches.values():
                branch.weight, branch.bias = self.branches[MAIN].weight, self.branches[MAIN].bias

    def forward(self, features: Tensor) -> Tensor:
        if self.shared is not None:
            features = self.shared(features)
        parts = self.route.parts
        if len(parts) == 1:
            whole: Tensor = self.branches[parts[0][0]](features)
            return whole
        pieces = features.split([rows for _, rows in parts])
        return torch.cat([self.branches[name](piece) for (name, _), piece in zip(parts, pieces, strict=True)])

    def plain(self, branch: str) -> nn.BatchNorm2d:
        """The `nn.BatchNorm2d` that this layer is for images of one branch, with weights of its own."""
        if self.shared is None:
            norm = copy.deepcopy(self.branches[branch])
            assert isinstance(norm, nn.BatchNorm2d)
            return norm
        norm, affine = copy.deepcopy(self.shared), copy.deepcopy(self.branches[branch])
        assert isinstance(affine, _Affine)
        norm.affine, norm.weight, norm.bias = True, affine.weight, affine.bias
        return norm


def split_norms(network: nn.Module, branches: Sequence[str], split: str = "full") -> Route:
    """Replace every `nn.BatchNorm2d` inside `network`, in place, by one with the branches named, "main" among them.

    A norm that stands in several places is split once and stays shared.

    Returns: the route that all of them follow.

    Raises:
        ValueError: nothing to split, an unknown `split`, no main branch, or an affine split without affine parameters.
    """
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is unknown; choose one of {', '.join(SPLITS)}")
    if MAIN not in branches:
        raise ValueError(f"branches: {MAIN!r} is missing: it is the one that is deployed")
    check_splits(network, split)
    route = Route()
    norms = _places(network, nn.BatchNorm2d)
    _replace(network, norms, lambda norm: SplitBatchNorm(norm, branches, split, route))
    return route


def check_splits(network: nn.Module, split: str = "full") -> None:
    """Refuse a network that cannot be split so; `split_norms` does it too, and this costs nothing beforehand.

    Raises:
        ValueError: no `nn.BatchNorm2d`; no affine parameters to share or split; statistics shared by layers that do
            more than normalise (timm's activate too), which the branches' parameters would then come after.
    """
    norms = _places(network, nn.BatchNorm2d)
    if not norms:
        raise ValueError(f"{type(network).__name__} holds no BatchNorm2d: there is nothing to split")
    for path, norm in norms:
        if split != "full" and not norm.affine:
            raise ValueError(f"split: {path} has no affine parameters to share or split; choose full")
        if split == "affine" and type(norm).forward is not nn.BatchNorm2d.forward:
            raise ValueError(
                f"split: {path} is a {type(norm).__name__}, more than batch norm; choose full or statistics"
            )


def _places(network: nn.Module, kind: type[Norm]) -> list[tuple[str, Norm]]:
    """Every module of that kind below `network` by its path, one that stands in several places at each of them.

    `named_children` and `modules` tell a shared module's first place alone.
    """
    every = network.named_modules(remove_duplicate=False)
    return [(path, module) for path, module in every if path and isinstance(module, kind)]


def _replace(network: nn.Module, norms: list[tuple[str, Norm]], make: Callable[[Norm], nn.Module]) -> None:
    """Put what is made of each norm in its places; it is made once, and shared where the norm was."""
    made: dict[int, nn.Module] = {}
    for path, norm in norms:
        if id(norm) not in made:
            made[id(norm)] = make(norm)
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, made[id(norm)])


def extract(network: nn.Module, branch: str = MAIN) -> nn.Module:
    """A copy of `network` with plain batch norm, as images of that branch see it; what is not split is copied as is."""
    plain = copy.deepcopy(network)
    plain.zero_grad(set_to_none=True)
    _replace(plain, _places(plain, SplitBatchNorm), lambda norm: norm.plain(branch))
    return plain


def branch_gap(network: nn.Module, branch: str, main: str = MAIN) -> Tensor:
    """How far the means of two branches lie apart: mean over all channels of |difference| / main's deviation.

    A scalar on the network's device; 0 where nothing is split or the statistics are shared.
    """
    norms = [module for module in network.modules() if isinstance(module, SplitBatchNorm) and module.shared is None]
    if not norms:
        return torch.zeros((), device=next(network.parameters()).device)
    means, others, variances = (
        torch.cat([getattr(norm.branches[name], what) for norm in norms])
        for name, what in ((main, "running_mean"), (branch, "running_mean"), (main, "running_var"))
    )
    return ((others - means).abs() / (variances + 1e-5).sqrt()).mean()


__all__ = ["MAIN", "SPLITS", "Route", "SplitBatchNorm", "branch_gap", "check_splits", "extract", "split_norms"]
