"""What the calibrator and its comparators share: training batches under shifts, a classifier rounded to few bits."""

import copy
import random
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from turncoat.attacks import SHIFTS, attacked
from turncoat.attacks.shifts import SEVERITIES
from turncoat.data.batches import Batch, DeviceSplit
from turncoat.methods.universal import stratified
from turncoat.models.calibrator import against_loss
from turncoat.models.quantised import quantise
from turncoat.randomness import generator
from turncoat.settings import ArmSettings, Start, Strict

OBSERVED = 256  # training images on which a quantised classifier's activation ranges are chosen


class QuantisedSettings(Strict):
    """Bits of a classifier that is rounded after training."""

    weights: int = Field(4, ge=2, le=8)
    activations: int | None = Field(None, ge=2, le=8, description="inputs of each layer; None: left as they are")
    through: Literal["quantised", "full"] = Field("quantised", description="what a calibrator is trained through")


class ShiftingSettings(ArmSettings):
    """An arm that prepares for shifts: those `seen` in training; under all others it is tested on what it never saw."""

    start: Start | None = "baseline"
    seen: list[str] = Field(
        ["contrast", "rotation", "blur", "noise"],
        description="shifts of training images, beside clean ones; the others are met in the evaluation only",
    )
    severities: list[int] = Field(list(SEVERITIES), min_length=1)
    quantised: QuantisedSettings | None = None

    @field_validator("seen")
    @classmethod
    def _known(cls, seen: list[str]) -> list[str]:
        wrong = [name for name in seen if name not in SHIFTS]
        if wrong or len(set(seen)) < len(seen):
            raise ValueError(f"each at most once, of {', '.join(SHIFTS)}")
        return seen

    @field_validator("severities")
    @classmethod
    def _severe(cls, severities: list[int]) -> list[int]:
        if not set(severities) <= set(SEVERITIES):
            raise ValueError(f"whole numbers from {SEVERITIES[0]} to {SEVERITIES[-1]}")
        return severities


def shifted(batch: Batch, settings: ShiftingSettings) -> Tensor:
    """The batch's images, an equal share of them clean and under each seen shift: (n, c, h, w) in [0, 1].

    Severities are drawn, one a shift and batch, from the batch's key, so that the device is never waited for.
    """
    draw = random.Random(batch.generator.initial_seed())
    shifts = [None, *settings.seen]
    draw.shuffle(shifts)  # where the batch does not divide evenly, the larger shares go round
    parts = [
        images if name is None else SHIFTS[name](images, draw.choice(settings.severities), batch.generator)
        for name, images in zip(shifts, batch.images.tensor_split(len(shifts)), strict=True)
        if len(images)
    ]
    return torch.cat(parts)


def oracle(
    network: nn.Module, images: DeviceSplit, epsilon: float, severities: Sequence[int], seed: int
) -> list[dict[str, Any]]:
    """What one step towards the true label gives under each shift: a bound with knowledge that no calibrator has.

    Returns: rows `{"shift", "severity", "correct", "oracle", "n"}`: images right as they are, and after a step of
        `epsilon` along the sign of the gradient.
    """
    rows = []
    with attacked(network), torch.no_grad():
        for name, shift in SHIFTS.items():
            for severity in severities:
                source = generator(seed, "shift", name, severity, device=images.labels.device)
                right = helped = torch.zeros((), dtype=torch.int64, device=images.labels.device)
                for batch, labels in zip(images.floats().split(1000), images.labels.split(1000), strict=True):
                    seen = shift(batch, severity, source)
                    right = right + (network(seen).argmax(1) == labels).sum()
                    helped = helped + (network(against_loss(network, seen, labels, epsilon)).argmax(1) == labels).sum()
                rows.append(
                    {
                        "shift": name,
                        "severity": severity,
                        "correct": int(right),
                        "oracle": int(helped),
                        "n": len(images),
                    }
                )
    return rows


def rounded(network: nn.Module, train: DeviceSplit, settings: QuantisedSettings | None, seed: int) -> nn.Module:
    """A quantised copy of the network, or the network itself without settings."""
    if settings is None:
        return network
    seen = stratified(train, OBSERVED, seed).floats()
    return quantise(copy.deepcopy(network), settings.weights, settings.activations, seen)
