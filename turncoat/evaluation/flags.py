"""Reasons not to believe a robust accuracy, each a check with a threshold of its own.

After Athalye et al. 2018 (arXiv 1802.00420) and Carlini et al. 2019 (arXiv 1902.06705): signs that an attack failed and
not that a network is robust. A check that speaks causes a second look (second_look.py); what the checks say after it
decides whether a flag blocks. Where next to nothing is left standing there is nothing to doubt.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from turncoat.attacks import apgd, autoattack, pgd
from turncoat.evaluation.planned import Planned
from turncoat.evaluation.results import BLACK_BOX, ITERATIVE, ONE_STEP, Bools, Evaluation, Flag

DEVIATION = 1e-6  # of the largest logit, between two passes over the same batch
SUM_TO_ONE = 1e-3  # rows of probabilities do, to this
DARK = 0.1  # no image has a pixel brighter than this: scaled twice
NOTHING_LEFT = 1.0  # points of robust accuracy below which no attack can have failed
SHARE = 1.0  # points of the images with dead gradients, or that a black box or one step turns and iterations do not
FEWEST = 3  # images, whatever their share: of a small test set one or two say nothing
STEPS = 3.0  # points between two PGDs that differ in steps, before a second look
MOVED = 2.0  # points that the last gradient attack of the second look still takes off the worst case
GAP = 5.0  # points of an attack above AutoAttack, or above the worst case after a second look
UNBOUNDED = 5.0  # points standing where every image can be turned into any other
FOUND = 0.85  # of the adversarial images that provably exist on a linear classifier


@dataclass(frozen=True)
class Evidence:
    """What the checks look at. Arrays have one row an image.

    Attributes:
        planned: the attacks of the suite. brightest: the highest pixel of all images.
        deviation: between two passes, relative to the largest logit. averaged: an attack averaged over the randomness.
        probabilities: the outputs are. undone: they were attacked through their logarithm.
        zero, broken: standing images whose gradient is zero or not finite.
        unbounded: who stands where every image is within reach.
        linear: adversarial images found on a linear classifier, and how many there are; None: none to be found.
        moved: points that the second look's last gradient attack took off the worst case; None before the second look.
    """

    result: Evaluation
    planned: Mapping[str, Planned]
    brightest: float
    deviation: float
    averaged: bool
    probabilities: bool
    undone: bool
    zero: Bools
    broken: Bools
    unbounded: Bools
    linear: tuple[int, int] | None
    moved: float | None = None

    @property
    def random(self) -> bool:
        return self.deviation > DEVIATION

    @property
    def chance(self) -> float:
        """Points by which one kind of attack may beat another: on a random network a verdict is of one draw."""
        return GAP if self.random else SHARE

    def many(self, images: int, share: float) -> bool:
        """Whether so many images are more than `share` points of all, and not one or two of a small set."""
        return images >= FEWEST and 100 * images > share * len(self.result.label)

    def turned(self, kind: str) -> int:
        """How many images fall to this kind of attack beside the iterative ones, and not to those alone."""
        alone = self.result.standing(ITERATIVE)
        return int(alone.sum()) - int(self.result.standing(ITERATIVE, kind).sum())

    @property
    def doubtful(self) -> bool:
        """Whether so much is left standing that it may be an attack's failure."""
        return points(self.result.worst) > NOTHING_LEFT


def points(images: Bools) -> float:
    """Share of the images in percent."""
    return round(100 * float(np.mean(images)), 6)


def is_probabilities(outputs: Tensor) -> bool:
    """Whether all rows are probabilities: none negative, sums of 1."""
    sums = outputs.sum(1)
    return bool((outputs >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=SUM_TO_ONE))


def random_forward(e: Evidence) -> Flag | None:
    """Two passes over the same images differ: dropout left on, or a random defence, which needs EOT."""
    if not e.random:
        return None
    met = "an attack averaged over the draws" if e.averaged else "no attack averaged over the draws"
    detail = f"two forward passes over the same images differ by {e.deviation:.1e} of the largest logit; {met}"
    return Flag("random-forward", detail, blocks=not e.averaged and e.doubtful)


def softmax_output(e: Evidence) -> Flag | None:
    """Probabilities instead of logits: the cross-entropy of a softmax of a softmax has next to no gradient."""
    if not e.probabilities:
        return None
    detail = "the outputs are probabilities, not logits: gradients vanish where the network is sure"
    return Flag("softmax-output", detail, blocks=not e.undone and e.doubtful)


def image_range(e: Evidence) -> Flag | None:
    """Images much darker than [0, 1] allows: divided by 255 twice, and epsilon means something else."""
    if e.brightest >= DARK:
        return None
    return Flag("image-range", f"no pixel exceeds {e.brightest:.4f}; images in [0, 1] wanted", blocks=True)


def zero_gradient(e: Evidence) -> Flag | None:
    """Input gradients that are zero throughout an image: saturated losses, rounding, thresholds."""
    if not e.doubtful or not e.many(int(e.zero.sum()), SHARE):
        return None
    return Flag("zero-gradient", f"{points(e.zero):.1f} % of the images stand and have no gradient at all", blocks=True)


def nan_gradient(e: Evidence) -> Flag | None:
    """Input gradients that are not finite: sign(NaN) is 0 in torch, and the attack does nothing."""
    if not e.doubtful or not e.broken.any():
        return None
    return Flag("nan-gradient", f"{e.broken.sum()} images stand and have a gradient that is not finite", blocks=True)


def black_box_beats_gradients(e: Evidence) -> Flag | None:
    """Images that fall to scores or transferred images, but to no gradient attack: gradients that mislead."""
    fell = e.turned(BLACK_BOX)
    if not e.doubtful or not e.many(fell, e.chance):
        return None
    return Flag("black-box", f"{fell} of the images fall to a black box, to no gradient attack", blocks=True)


def one_step_beats_iterations(e: Evidence) -> Flag | None:
    """Images that fall to one step, but to no iterative attack."""
    fell = e.turned(ONE_STEP)
    if not e.doubtful or not e.many(fell, e.chance):
        return None
    return Flag("one-step", f"{fell} of the images fall to one step, to no iterative attack", blocks=True)


def more_steps(e: Evidence) -> Flag | None:
    """More steps still change the result: PGD against PGD of the suite; later, the last gradient attack against all."""
    if not e.doubtful:
        return None
    if e.moved is not None:
        detail = f"the last gradient attack of the second look turned {e.moved:.1f} % of the images more"
        return Flag("more-steps", detail, blocks=True) if e.moved > MOVED else None
    by_loss: dict[str, list[tuple[int, str]]] = {}
    for name, plan in e.planned.items():
        if (
            plan.function is pgd
            and not (plan.threat or plan.alone)
            and name in e.result.correct
            and "steps" in plan.settings
        ):
            alike = str((plan.settings.get("loss"), plan.draws, plan.bpda, plan.fixed))
            by_loss.setdefault(alike, []).append((plan.settings["steps"], name))
    for pair in by_loss.values():
        (few, fewer), (many, more) = sorted(pair)[-2:] if len(pair) > 1 else (pair[0], pair[0])
        gain = points(e.result.correct[fewer]) - points(e.result.correct[more])
        if gain > STEPS:
            return Flag("more-steps", f"{many} steps turn {gain:.1f} % of the images more than {few}", blocks=True)
    return None


def larger_epsilon(e: Evidence) -> Flag | None:
    """An attack with every image within its reach must turn all of them: here the answer is known."""
    share = points(e.unbounded)
    if not e.doubtful or share <= UNBOUNDED:
        return None
    return Flag("larger-epsilon", f"{share:.1f} % of the images stand where every image is within reach", blocks=True)


def closed_form(e: Evidence) -> Flag | None:
    """The suite itself is weak: it misses adversarial images of a linear classifier that provably exist."""
    if e.linear is None or e.linear[0] >= FOUND * e.linear[1]:
        return None
    detail = f"on a linear classifier the attacks found {e.linear[0]} of {e.linear[1]} adversarial images that exist"
    return Flag("closed-form", detail, blocks=e.doubtful)


CHECKS: tuple[Callable[[Evidence], Flag | None], ...] = (
    random_forward,
    softmax_output,
    image_range,
    zero_gradient,
    nan_gradient,
    black_box_beats_gradients,
    one_step_beats_iterations,
    more_steps,
    larger_epsilon,
    closed_form,
)


def check(evidence: Evidence) -> list[Flag]:
    """All flags that the evidence raises."""
    return [flag for look in CHECKS if (flag := look(evidence)) is not None]


def settled(before: list[Flag], after: list[Flag]) -> list[Flag]:
    """The flags of a record: what the second look did not settle blocks; what it settled stays, and does not."""
    again = {flag.name: flag for flag in after}
    kept = [
        again.pop(flag.name) if flag.name in again else replace(flag, blocks=False, detail=f"{flag.detail}; settled")
        for flag in before
    ]
    return [*kept, *again.values()]


def overstated(result: Evaluation, planned: Mapping[str, Planned], looked: bool) -> list[Flag]:
    """Attacks whose own number says too much: PGD more than `GAP` points above AutoAttack, or above what a second look
    found; one flag each, which leaves the worst case alone."""
    auto = [
        name
        for name in result.in_worst
        if name in planned and planned[name].function is autoattack and not planned[name].alone
    ]
    if not auto and not looked:
        return []
    reference = points(np.logical_and.reduce([result.correct[name] for name in auto]) if auto else result.worst)
    called = "AutoAttack" if auto else "the worst case"
    flags = []
    for name in result.in_worst:
        if name in planned and planned[name].function in (pgd, apgd) and not planned[name].alone:
            gap = points(result.correct[name]) - reference
            if gap > GAP:
                detail = f"leaves {gap:.1f} points more standing than {called}"
                flags.append(Flag("autoattack-gap" if auto else "overstated", detail, blocks=True, attack=name))
    return flags
