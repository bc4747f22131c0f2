"""Networks that answer attacks and verdicts unlike, by memory, counters, caches, clocks or branches."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.evaluation.broken import Defended


class Memory(Defended):
    """Answers from memory what lies within 0.151 of an image it has seen."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.seen: list[Tensor] = []
        self.answers: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        if self.seen:
            seen, answers = torch.cat(self.seen), torch.cat(self.answers)
            distance, nearest = torch.cdist(images.detach().flatten(1), seen, torch.inf).min(1)
            logits = torch.where(distance[:, None] < 0.151, answers[nearest], logits)
        self.seen = [*self.seen, images.detach().flatten(1)][:8]
        self.answers = [*self.answers, logits.detach()][:8]
        return logits


class CachedByShape(Defended):
    """Gives the answers of the first batch of a shape to all of that shape."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.cache: dict[tuple[int, ...], Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        return self.cache.setdefault(tuple(images.shape), self.network(images))


class Counting(Defended):
    """Hides its gradient from the second call on."""

    calls, honest = 0, 1

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.network(images) if self.calls <= self.honest else self.network(images.flip(3)).detach()


class CountingLong(Counting):
    """The same from the tenth call on, when the probes have gone."""

    honest = 9


class InPlaceWeights(Defended):
    """Each call moves its own weights."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            logits = self.network(images)
        for parameter in self.network.parameters():
            parameter.data.mul_(1.05).add_(0.01)
        return logits


class RepeatedQueries(Defended):
    """Answers at random what resembles the query before."""

    last: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        alike = self.last is not None and self.last.shape == images.shape
        alike = alike and bool((images.detach() - self.last).abs().max() < 0.31)
        self.last = images.detach().clone()
        return self.network(images.flip(2)).detach() if alike else self.network(images)


class Clock(Defended):
    """Changes its answer when it is late."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.flip(3) if self.late else images)

    late = False


class GradientBranch(Defended):
    """Another answer, without a gradient, to who wants a gradient."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.flip(2)).detach() if images.requires_grad else self.network(images)


class GradMode(Defended):
    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.flip(2)).detach() if torch.is_grad_enabled() else self.network(images)


class ParameterBranch(Defended):
    """Attacks freeze the weights: who sees them frozen is attacked."""

    def forward(self, images: Tensor) -> Tensor:
        frozen = not next(self.network.parameters()).requires_grad
        return self.network(images.flip(2)).detach() if frozen else self.network(images)


class Seeds(Defended):
    """Verdicts hand over seeds, attacks do not."""

    def forward(self, images: Tensor, *, seeds: Sequence[int] | None = None) -> Tensor:
        return self.network(images if seeds else images.flip(2))


class RandomSeeds(Defended):
    """The same, with noise."""

    def forward(self, images: Tensor, *, seeds: Sequence[int] | None = None) -> Tensor:
        if seeds is None:
            logits = self.network(images.flip(2))
            return logits + 0.3 * torch.randn_like(logits)
        logits = self.network(images)
        draws = [torch.randn(10, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return logits + 0.3 * torch.stack(draws)


class BatchStatistics(Defended):
    """Batch norm without running statistics."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.norm(images) * 0.38 + 0.31)


class NoisyBatchStatistics(BatchStatistics):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits + 0.1 * torch.randn_like(logits)


class HookedGradient(Defended):
    """A hook turns the gradient round."""

    def forward(self, images: Tensor) -> Tensor:
        images = images + 0
        if images.requires_grad:
            images.register_hook(torch.neg)
        return self.network(images)


class NoiseGradient(Defended):
    """A hook puts noise in the gradient's place."""

    def forward(self, images: Tensor) -> Tensor:
        images = images + 0
        if images.requires_grad:
            images.register_hook(torch.randn_like)
        return self.network(images)


class ZeroHook(Defended):
    def forward(self, images: Tensor) -> Tensor:
        images = images + 0
        if images.requires_grad:
            images.register_hook(torch.zeros_like)
        return self.network(images)


class Temperature(Defended):
    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) * 1e5


class Cold(Defended):
    """Logits so near to each other that float32 hardly tells them apart."""

    def forward(self, images: Tensor) -> Tensor:
        return functional.normalize(self.network(images)) * 1e-4


class RoundedLogits(Defended):
    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).mul(4).round().div(4)
