"""What an evaluation found, image by image."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
ITERATIVE, ONE_STEP, BLACK_BOX = "iterative", "one step", "black box"  # kinds of attack


@dataclass(frozen=True)
class Flag:
    """A warning that travels with the numbers.

    `attack` names the one measure that is in doubt; None: every measure under attack. `blocks`: nothing may be
    concluded from it. A flag that was settled by the second look stays in the record and does not block.
    """

    name: str
    detail: str
    blocks: bool
    attack: str | None = None


@dataclass
class Evaluation:
    """What a network did. Arrays have one row an image; `correct` holds, per attack, who stayed right under it.

    `threats`: attacks under a threat of their own (None: under no norm), which the worst case leaves out.
    `met`: how many images an attack met, where it did not meet all that are classified rightly.
    `parts`: of an ensemble, who fell to which of its attacks. `kinds`: per attack, one of the three above.
    """

    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    confidence: NDArray[np.float32]
    correct: dict[str, Bools] = field(default_factory=dict)
    passes: dict[str, dict[str, float]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    parts: dict[str, dict[str, Bools]] = field(default_factory=dict)
    threats: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    met: dict[str, int] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    shifts: list[dict[str, Any]] = field(default_factory=list)
    corruptions: list[dict[str, Any]] = field(default_factory=list)
    universal: list[dict[str, Any]] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    overhead: dict[str, float] = field(default_factory=lambda: {"forward": 0.0, "backward": 0.0})

    @property
    def clean(self) -> Bools:
        right: Bools = self.prediction == self.label
        return right

    @property
    def in_worst(self) -> list[str]:
        """The attacks of the worst case: those under the threat that the network is judged by."""
        return [name for name in self.correct if name not in self.threats]

    @property
    def worst(self) -> Bools:
        """Who stayed right under every attack of the threat."""
        return self._standing(self.in_worst)

    def standing(self, *kinds: str) -> Bools:
        """Who stayed right under the attacks of these kinds, an ensemble without its black-box part."""
        names = [name for name in self.in_worst if self.kinds.get(name) in kinds]
        standing = self._standing(names)
        if BLACK_BOX not in kinds:
            for name in names:
                others = [other for other in names if other != name]
                standing |= self._standing(others) & self.parts.get(name, {}).get("square", np.False_)
        return standing

    def _standing(self, names: list[str]) -> Bools:
        standing: Bools = np.logical_and.reduce([self.clean, *(self.correct[name] for name in names)])
        return standing


def counted(right: Bools) -> dict[str, Any]:
    """`{"correct", "n"}`: integers, so that nothing is lost to rounding."""
    return {"correct": int(right.sum()), "n": len(right)}
