"""What an evaluation found, image by image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from turncoat.attacks import Threat
    from turncoat.evaluation.planned import Planned

Bools = NDArray[np.bool_]
Shares = NDArray[np.float64]
DRAWS = 20  # of a random network: by them its attacks are compared; the verdict is of a draw beside them
ITERATIVE, ONE_STEP, BLACK_BOX = "iterative", "one step", "black box"  # kinds of attack
# What a record and examples.npz hold of every network, and what begins the names of attacks that a flag calls in and of
# worst cases under a foreign threat: no attack of a suite may go by such a name.
TAKEN = ("clean", "confidence", "corruptions", "index", "label", "prediction", "shifts", "universal", "worst")
SECOND_LOOK, WORST_UNDER = "second-look-", "worst-"


@dataclass(frozen=True)
class Flag:
    """A warning that travels with the numbers.

    `attack` names the one measure that is in doubt; None: every measure under attack. `blocks`: nothing about
    robustness may be concluded from it. A flag that the second look settled stays in the record and does not block.
    """

    name: str
    detail: str
    blocks: bool
    attack: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What one attack, or the worst of several, did to each image.

    Attributes:
        right: who stayed right. Of a random network: in one draw, an image's own, the same under every attack.
        harm: of a random network, the mean probability of a wrong answer over `DRAWS` other draws; 1 where each of them
            is wrong or there was nothing to attack, -1 before any attack. None: the network is not random.
    """

    right: Bools
    harm: Shares | None = None

    @classmethod
    def of(cls, among: Bools, random: bool) -> "Outcome":
        """Before any attack on `among`."""
        return cls(among, np.where(among, -1.0, 1.0) if random else None)

    @property
    def open(self) -> Bools:
        """Whom a further attack can harm more."""
        return self.right if self.harm is None else self.harm < 1

    def worse(self, other: "Outcome") -> "Outcome":
        """The worst of both, image by image.

        Of a random network that is what an attacker can choose who does not know the draw that decides: the attack
        that does more harm over the other draws. If every attack that happened to hit the deciding draw counted,
        enough attacks would bring down any random network.
        """
        if self.harm is None or other.harm is None:
            return Outcome(self.right & other.right)
        harder = other.harm > self.harm
        return Outcome(np.where(harder, other.right, self.right), np.maximum(self.harm, other.harm))


@dataclass(frozen=True)
class AdversarialImages:
    """The images that brought a network down: one of each image that was right and did not stand in the worst case.

    Attributes:
        index, label: (k,) int64, the places among the images and their classes.
        images: (k, c, h, w) float32 in [0, 1]: of all that an attack of the threat made, the one with the largest
            margin of a wrong class over the right one.
        attack: the name of the attack that made it, with its part where it has several.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    images: NDArray[np.float32]
    attack: NDArray[np.str_]


@dataclass
class Evaluation:
    """What a network did. Arrays have one row an image; `correct` holds, per attack, who stayed right under it.

    `harm`: of a random network, see `Outcome`.
    `threats`: attacks under a threat of their own (None: under no norm), which the worst case leaves out.
    `met`: how many images an attack met, where it did not meet all that are classified rightly.
    `rungs`: of an attack that doubled its steps and draws, what each rung came to (ladder.py).
    `overstatement`: by how much the worst case may overstate, where AutoAttack looked at a sample of it (audit.py).
    `parts`: of an ensemble, who fell to which of its attacks. `kinds`: per attack, one of the three above.
    `scenes`: who is right under "shift <name> <severity>" and "corruption <name> <severity>"; who was not sent to the
    class by "universal <class>" (images of that class never are).
    `batch_size`: images that an attack met at a time, where the suite says `auto`.
    `adversarial`: the images that brought the network down, where they were to be kept.
    """

    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    confidence: NDArray[np.float32]
    correct: dict[str, Bools] = field(default_factory=dict)
    harm: dict[str, Shares] = field(default_factory=dict)
    passes: dict[str, dict[str, float]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    parts: dict[str, dict[str, Bools]] = field(default_factory=dict)
    threats: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    met: dict[str, int] = field(default_factory=dict)
    rungs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    overstatement: dict[str, float] | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    shifts: list[dict[str, Any]] = field(default_factory=list)
    corruptions: list[dict[str, Any]] = field(default_factory=list)
    universal: list[dict[str, Any]] = field(default_factory=list)
    scenes: dict[str, Bools] = field(default_factory=dict)
    flags: list[Flag] = field(default_factory=list)
    batch_size: int = 0
    adversarial: AdversarialImages | None = None
    overhead: dict[str, float] = field(default_factory=lambda: {"forward": 0.0, "backward": 0.0})

    @property
    def clean(self) -> Bools:
        right: Bools = self.prediction == self.label
        return right

    def enter(self, name: str, planned: "Planned", threat: "Threat", found: Outcome) -> None:
        """Enter what an attack left, and the threat it was under where that is one of its own."""
        self.correct[name], self.kinds[name] = found.right, planned.kind
        if found.harm is not None:
            self.harm[name] = found.harm
        if planned.spatial:
            self.threats[name] = None
        elif planned.threat:
            self.threats[name] = {"norm": threat.norm, "epsilon": threat.epsilon}

    @property
    def in_worst(self) -> list[str]:
        """The attacks of the worst case: those under the threat that the network is judged by."""
        return [name for name in self.correct if name not in self.threats]

    @property
    def worst(self) -> Bools:
        """Who stayed right in the worst case over the attacks of the threat."""
        return self.worst_of(self.in_worst)

    @property
    def unseen(self) -> dict[str, list[str]]:
        """The attacks under each foreign threat, by the name of its own worst case: `worst-l2-0.5`."""
        found: dict[str, list[str]] = {}
        for name, threat in self.threats.items():
            if threat is not None:
                found.setdefault(f"{WORST_UNDER}{threat['norm']}-{threat['epsilon']:.4g}", []).append(name)
        return found

    def worst_of(self, names: Sequence[str]) -> Bools:
        """Who stayed right in the worst case over these attacks; never more than under any one of them.

        Of a random network the choice by harm is made over other draws than the one that is counted, so a single attack
        may leave fewer than the mixture does: then its verdicts are the worst case. All mixtures on the way compete
        too, so that a further attack, of a second look say, never lets more stand.
        """
        mixed = fewest = self.outcome([])
        for name in names:
            attack = self.outcome_of(name)
            mixed = mixed.worse(attack)
            fewest = min(mixed, fewest, attack, key=lambda one: int(one.right.sum()))
        return fewest.right

    def standing(self, *kinds: str) -> Bools:
        """Who stayed right under the attacks of these kinds, an ensemble without its black-box part."""
        names = self.of_kinds(*kinds)
        standing = self.outcome(names).right.copy()
        if BLACK_BOX not in kinds:
            for name in names:
                others = [other for other in names if other != name]
                standing |= self.outcome(others).right & self.parts.get(name, {}).get("square", np.False_)
        return standing

    def of_kinds(self, *kinds: str) -> list[str]:
        """The attacks of the worst case that are of these kinds."""
        return [name for name in self.in_worst if self.kinds.get(name) in kinds]

    def outcome(self, names: Sequence[str]) -> Outcome:
        """The worst of these attacks, image by image: of a random network, the choice by harm alone."""
        return reduce(Outcome.worse, map(self.outcome_of, names), Outcome.of(self.clean, bool(self.harm)))

    def outcome_of(self, name: str) -> Outcome:
        """What one attack left."""
        return Outcome(self.correct[name], self.harm.get(name))


def counted(right: Bools) -> dict[str, Any]:
    """`{"correct", "n"}`: integers, so that nothing is lost to rounding."""
    return {"correct": int(right.sum()), "n": len(right)}
