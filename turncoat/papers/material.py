"""What an analysis of a paper looks at: the trained arms of a study on one data set, at its first seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from turncoat.attacks import Threat
from turncoat.data.batches import DeviceSplit
from turncoat.randomness import generator

IMAGES = 500  # test images, at most, that an analysis attacks
BESIDE = ("standard", "pgd")  # methods that every paper's own are compared with

# JSON values for analysis.json, and arrays for what is longer than a line
Findings: TypeAlias = tuple[dict[str, Any], dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class Arm:
    """A trained arm: its settings, and its deployed network for whoever asks."""

    plan: Mapping[str, Any]
    load: Callable[[], nn.Module]


@dataclass(frozen=True)
class Material:
    """What the analyses of one data set and seed look at.

    Attributes:
        test: the images that were attacked; attacked: (n, c, h, w), made against the baseline.
        made: of each way of making universal perturbations, what perturbed.json says; universal: (classes, c, h, w).
    """

    arms: Mapping[str, Arm]
    baseline: nn.Module
    train: DeviceSplit
    test: DeviceSplit
    classes: int
    threat: Threat
    seed: int
    attacked: Tensor
    made: Mapping[str, Mapping[str, Any]]
    universal: Mapping[str, Tensor]

    def of(self, *methods: str) -> dict[str, Arm]:
        """The arms of these methods, in the order of the study."""
        return {name: arm for name, arm in self.arms.items() if arm.plan["method"] in methods}

    @property
    def few(self) -> DeviceSplit:
        """The first `IMAGES` test images."""
        return DeviceSplit(self.test.images[:IMAGES], self.test.labels[:IMAGES])

    def source(self, *key: str) -> torch.Generator:
        """Randomness of this seed, the same for every arm."""
        return generator(self.seed, "analyse", *key, device=self.test.labels.device)


@dataclass(frozen=True)
class DenseMaterial:
    """What the analyses of a data set of segmentation or detection look at, at its first seed."""

    arms: Mapping[str, Arm]
    test: DeviceSplit
    threat: Threat
    seed: int

    def of(self, *methods: str) -> dict[str, Arm]:
        """The arms of these methods, in the order of the study."""
        return {name: arm for name, arm in self.arms.items() if arm.plan["method"] in methods}

    def source(self, *key: str) -> torch.Generator:
        """Randomness of this seed, the same for every arm."""
        return generator(self.seed, "analyse", *key, device=self.test.labels.device)
