"""What an attacker may do: a norm ball of radius epsilon around each image, cut with the box [0, 1].

The l1 step moves the few coordinates with the largest gradients (Tramer & Boneh 2019, arXiv 1904.13000); the l1
projection onto ball and box at once follows Croce & Hein 2021, "Mind the box" (arXiv 2103.01208), section 3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from turncoat.errors import TurncoatError

NORMS = ("linf", "l2", "l1")
SPARSITY = 0.01  # share of the coordinates that an l1 step moves
TOLERANCE = 1e-6  # of the ball and of the box: what float32 addition may lose
Projection = Callable[[Tensor], Tensor]


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """Reshape one value an example, (n,), so that it broadcasts against images (n, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def uniform(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform [0, 1) noise of the images' shape and device; equal for contiguous and channels-last images."""
    return torch.rand(images.shape, **_source(generator)).to(images.device)


def normal(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the images' shape and device."""
    return torch.randn(images.shape, **_source(generator)).to(images.device)


def _source(generator: torch.Generator | None) -> dict[str, Any]:
    if generator is None:
        raise ValueError(
            "generator: this attack draws random numbers; pass a torch.Generator, which then determines them"
        )
    return {"generator": generator, "device": generator.device, "dtype": torch.float32}


@dataclass(frozen=True)
class Threat:
    """All images within `epsilon` of the original in `norm` ("linf", "l2", "l1"), and within [0, 1].

    Epsilon is in units of pixel values of images in [0, 1]: finite and above 0, for "linf" at most 1.
    """

    norm: str
    epsilon: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"threat.norm: {self.norm!r} is unknown; choose one of {', '.join(NORMS)}")
        highest = 1.0 if self.norm == "linf" else math.inf
        given: object = self.epsilon
        number = isinstance(given, Real) and not isinstance(given, bool)
        if not (number and math.isfinite(self.epsilon) and 0 < self.epsilon <= highest):
            allowed = "0 < epsilon <= 1" if self.norm == "linf" else "0 < epsilon, finite"
            raise ValueError(f"threat.epsilon: {self.epsilon!r} is not allowed for {self.norm}; give {allowed}")
        object.__setattr__(self, "epsilon", float(self.epsilon))  # np.float32(8 / 255) would not go into a record

    def projection(self, images: Tensor) -> Projection:
        """The projection onto this threat around `images` (n, ...), with what all steps share computed once."""
        if self.norm == "linf":
            lower, upper = (images - self.epsilon).clamp_(min=0), (images + self.epsilon).clamp_(max=1)
            return lambda adversarial: torch.clamp(adversarial, lower, upper)
        shrink = _shrink_l2 if self.norm == "l2" else _shrink_l1
        return lambda adversarial: shrink(adversarial.float(), images, self.epsilon)

    def project(self, adversarial: Tensor, images: Tensor) -> Tensor:
        """Bring `adversarial` into ball and box around `images` (both (n, ...)); float32, exact to 1e-6.

        For linf and l1 the Euclidean projection onto ball and box together; for l2 scaling, then clipping.
        """
        return self.projection(images)(adversarial.float())

    def distance(self, adversarial: Tensor, images: Tensor) -> Tensor:
        """Norm of the perturbation, one an example: (n,)."""
        change = (adversarial - images).flatten(1)
        order = {"linf": math.inf, "l2": 2, "l1": 1}[self.norm]
        exact = torch.float64 if self.norm == "l1" else None  # float32 sums of thousands lose what the ball allows
        length: Tensor = torch.linalg.vector_norm(change, order, dim=1, dtype=exact)
        return length.to(change.dtype)

    def random_start(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """A point drawn uniformly from the ball around each image, then brought into the box: (n, ...) float32."""
        if self.norm == "linf":
            return self.project(images + (2 * uniform(images, generator) - 1) * self.epsilon, images)
        size = images[0].numel()
        if self.norm == "l2":
            change = normal(images, generator).flatten(1)
            change = change / torch.linalg.vector_norm(change, dim=1, keepdim=True).clamp_min(1e-12)
            change = change * uniform(images[:, :1].flatten(1)[:, :1], generator) ** (1 / size)
        else:  # size + 1 exponentials over their sum are uniform on the simplex; leaving one out fills the ball
            spread = -torch.log1p(-uniform(images.new_empty(len(images), size + 1), generator))
            signs = torch.where(uniform(images.flatten(1), generator) < 0.5, -1.0, 1.0)
            change = signs * spread[:, :-1] / spread.sum(1, keepdim=True)
        return self.project(images + self.epsilon * change.view(images.shape), images)


def ascend(adversarial: Tensor, gradient: Tensor, threat: Threat, size: float) -> Tensor:
    """One step of length `size` in the norm of the threat along the gradient; NaN gradients count as zero."""
    if threat.norm == "linf":
        return adversarial.add(gradient.sign(), alpha=size)  # sign(NaN) is 0
    gradient = gradient.nan_to_num(0, 0, 0)
    if threat.norm == "l2":
        length = torch.linalg.vector_norm(gradient.flatten(1), dim=1).clamp_min(1e-12)
        return adversarial + gradient * per_example(size / length, gradient)
    flat, at = gradient.flatten(1), adversarial.flatten(1)
    free = torch.where(flat > 0, at < 1, at > 0)  # a coordinate at the edge of the box cannot move outwards
    strength = flat.abs() * free
    count = max(1, round(SPARSITY * flat.shape[1]))
    largest = strength.topk(count, dim=1)
    signs = flat.gather(1, largest.indices).sign() * (largest.values > 0)
    moves = torch.zeros_like(flat).scatter_(1, largest.indices, signs * (size / count))
    return adversarial + moves.view_as(adversarial)


def check_inside(adversarial: Tensor, images: Tensor, threat: Threat | None, name: str) -> None:
    """Refuse adversarial images outside ball (where there is one) or box: no result may rest on them.

    Raises:
        TurncoatError: names the attack and by how much it left.
    """
    over = 0.0 if threat is None else float((threat.distance(adversarial, images) - threat.epsilon).max())
    outside = float(torch.maximum(-adversarial.min(), adversarial.max() - 1))
    slack = TOLERANCE * max(1.0, threat.epsilon if threat else 1.0)
    if not (over <= slack and outside <= TOLERANCE):  # NaN is refused too
        raise TurncoatError(
            f"attack {name}: left its threat (ball by {over:.2e}, box by {outside:.2e}): a fault of the attack"
        )


def _shrink_l2(adversarial: Tensor, images: Tensor, epsilon: float) -> Tensor:
    change = adversarial - images
    length = torch.linalg.vector_norm(change.flatten(1), dim=1)
    factor = (epsilon / length.clamp_min(1e-12)).clamp_max(1)
    # the image is inside the box, so that clipping afterwards only shortens the perturbation
    return (images + change * per_example(factor, change)).clamp(0, 1)


def _shrink_l1(adversarial: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """Soft-threshold each change by one lambda an example, then clip: the lambda that makes the l1 norm epsilon.

    A coordinate with change d and room r to the box counts min(max(|d| - lambda, 0), r): piecewise linear in lambda,
    with its corners at |d| - r and |d|. Sorting all corners gives lambda in one sweep.
    """
    rounding = 3e-8 * images[0].numel()  # the coordinates of an image, each rounded to float32, must not add up to more
    epsilon = max(0.0, epsilon * (1 - 1e-6) - rounding)
    change, flat = (adversarial - images).flatten(1), images.flatten(1)
    size, room = change.abs(), torch.where(change > 0, 1 - flat, flat)
    corners, order = torch.cat([size, size - room], 1).double().sort(dim=1, descending=True)
    # from above: passing |d| adds one growing coordinate, passing |d| - r ends its growth
    slope = torch.where(order < size.shape[1], 1.0, -1.0).double().cumsum(1)
    norm = torch.cat([torch.zeros_like(corners[:, :1]), (slope[:, :-1] * -corners.diff(dim=1)).cumsum(1)], 1)
    over = (norm > epsilon).int()
    passed = torch.where(over.any(1), over.argmax(1), corners.shape[1] - 1).clamp_min(1) - 1
    at = passed[:, None]
    missing = epsilon - norm.gather(1, at)
    cut = corners.gather(1, at) - missing / slope.gather(1, at).clamp_min(1)
    cut = torch.where(over.any(1, keepdim=True), cut, 0.0).clamp_min(0).float()
    kept = torch.minimum((size - cut).clamp_min(0), room)
    kept = kept * (epsilon / kept.sum(1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
    return (flat + change.sign() * kept).clamp(0, 1).view(images.shape)
