"""One attack of a suite: which networks it meets, how it sees them, what it is run with."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn

from turncoat.attacks import (
    Counter,
    Threat,
    autoattack,
    bpda,
    ensemble,
    eot,
    fgsm,
    fixed,
    rotate_translate,
    square,
    stadv,
)
from turncoat.attacks.autoattack import EOT_DRAWS
from turncoat.evaluation.results import BLACK_BOX, ITERATIVE, ONE_STEP

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TARGETED = ("least-likely", "random", "next")
Attack = Callable[..., Tensor]


@dataclass(frozen=True)
class Planned:
    """One attack of a suite.

    Attributes:
        function, settings: the attack; None for a transfer attack, which takes the perturbed images `stored` instead.
        threat: of an unseen attack, which stays out of the worst case; None: the threat the network is judged by.
        eot: passes through a random network over which is averaged; average: what is, see `eot`. fixed: its draws are
            held while it is attacked. An attack with eot or fixed meets random networks only.
        doublings: how often at most steps or draws, in turn, are doubled, until that takes little: see ladder.py.
        among: "standing" meets only what the attacks before left standing; it counts what stands after all of them.
        bpda: the purifier in front of a network is passed by in the backward pass. alone: the classifier behind the
            purifier is attacked as if there were none, and the whole is scored. Either meets networks with one only.
        deterministic: meets networks without randomness only.
        stepwise: meets networks only whose answers move in steps, as a quantised one's do: see probes.py.
        targeted: the class that the attack leads to, see `aims`; "": any wrong one. Any wrong answer counts either way.
        precision: of the network's layers while it is attacked; logits, losses, the images made and all verdicts
            are float32.
    """

    function: Attack | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    stored: str | None = None
    threat: Threat | None = None
    eot: int = 0
    average: Literal["loss", "logits", "probabilities"] = "loss"
    doublings: int = 0
    among: Literal["clean", "standing"] = "clean"
    fixed: bool = False
    bpda: bool = False
    alone: bool = False
    deterministic: bool = False
    stepwise: bool = False
    targeted: str = ""
    precision: str = "float32"

    @property
    def spatial(self) -> bool:
        """Whether it moves pixels, so that no norm bounds it."""
        return self.function in (stadv, rotate_translate)

    @property
    def kind(self) -> str:
        """What the flags compare: iterative, one step or black box."""
        if self.function in (None, square) or self.alone:  # no gradient of the whole
            return BLACK_BOX
        return ONE_STEP if self.function is fgsm or self.settings.get("steps") == 1 else ITERATIVE

    @property
    def draws(self) -> int:
        """Passes over which is averaged; 0: the network is attacked as it is."""
        rand = self.function is autoattack and self.settings.get("version") == "rand"
        return self.eot or (EOT_DRAWS if rand else 0)

    def rung(self, doublings: int) -> "Planned":
        """The same after so many doublings: of the steps, of the draws, in turn; steps of a set size get smaller."""
        longer, draws, settings = 2 ** ((doublings + 1) // 2), 2 ** (doublings // 2), dict(self.settings)
        settings["steps"] *= longer
        for size in {"step", "relative_step"} & settings.keys():
            settings[size] /= longer
        return replace(self, settings=settings, eot=self.eot * draws, doublings=0)

    def meets(self, model: nn.Module, random: bool, stepwise: bool = False) -> bool:
        """Whether this attack is meant for such a network."""
        meant = not self.deterministic if random else not (self.draws or self.fixed)
        meant = meant and (stepwise or not self.stepwise)
        return meant and (not (self.bpda or self.alone) or hasattr(model, "purify"))

    def seen(self, model: nn.Module, seed: int, room: int) -> tuple[nn.Module, Counter]:
        """The network as this attack sees it, and the counter of what goes through it.

        Args:
            room: images that may go through the network at a time.
        """
        if self.alone:
            counter = Counter(model.classifier)  # type: ignore[arg-type]
        elif self.bpda:
            counter = Counter(bpda(model.purify, model.classifier))  # type: ignore[arg-type]
        else:
            counter = Counter(model)
        held = fixed(counter, seed) if self.fixed else counter
        if not self.draws:
            return held, counter
        return eot(held, self.draws, at_once=self.draws <= room, average=self.average), counter

    def together(self, room: int) -> int:
        """Images to attack at a time, where `room` may go through the network: EOT multiplies what is held in memory.

        Where not even the draws of one image fit they come one after the other, each of as many images as fit.
        """
        return room // self.draws if 0 < self.draws <= room else room

    @property
    def blind(self) -> bool:
        """Whether it needs answers alone: no gradient."""
        return self.function in (None, square, rotate_translate)

    def aims(self, logits: Tensor, labels: Tensor, source: torch.Generator) -> Tensor | None:
        """The class (n,) that each image is led to; None: any but its own.

        Args:
            logits: (n, classes) of the clean images.
        """
        if not self.targeted:
            return None
        classes = logits.shape[1]
        if self.targeted == "least-likely":
            own = torch.nn.functional.one_hot(labels, classes).bool()
            return logits.masked_fill(own, torch.inf).argmin(1)
        ahead = torch.ones_like(labels)
        if self.targeted == "random":
            ahead = torch.randint(1, classes, labels.shape, generator=source, device=labels.device)
        return (labels + ahead) % classes

    def parts(self, threat: Threat) -> dict[str, Attack]:
        """The attacks that this one consists of, by name; each is meant for what those before it left standing."""
        if self.function is autoattack:
            stages = ensemble(**{"version": "standard", **self.settings}, threat=threat)
        else:
            assert self.function is not None
            stages = {"": partial(self.function, **self.settings)}
        return {name: reduced(attack, self.precision) for name, attack in stages.items()}

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, generator: torch.Generator
    ) -> Tensor:
        """Adversarial images (n, c, h, w), by all parts in one."""
        assert self.function is not None
        attack = reduced(partial(self.function, **self.settings), self.precision)
        return call(attack, model, images, labels, threat, generator=generator)


def call(attack: Attack, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, **given: Any) -> Tensor:
    """Run `attack`, which is passed what it takes of `given`; fallen examples leave unless `early_stop` is off."""
    takes = inspect.signature(attack).parameters
    given = {"early_stop": True, **given}
    if "early_stop" in takes and not given["early_stop"]:
        given["restarts"] = 1  # a restart is for those that have not left
    return attack(model, images, labels, threat, **{name: value for name, value in given.items() if name in takes})


def reduced(attack: Attack, precision: str) -> Attack:
    """`attack` on a network whose layers compute in `precision`; who falls in it falls once float32 agrees."""
    if precision == "float32":
        return attack

    @wraps(attack)  # `call` looks at what the attack takes
    def run(model: nn.Module, images: Tensor, *given: Any, **settings: Any) -> Tensor:
        with torch.autocast(images.device.type, PRECISIONS[precision]):
            return attack(model, images, *given, **settings)

    return run
