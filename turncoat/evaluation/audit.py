"""By how much a worst case overstates: AutoAttack in full on some of the images that stand, where the suite lacks it.

What falls does not leave the worst case. Of a hundred images drawn it would be a large part of what stands in a weak
network and a small one in a strong network, and two networks would no longer have met the same attacks.
"""

import numpy as np
import torch

from turncoat.attacks import Threat, autoattack
from turncoat.evaluation.flags import FEWEST, SHARE
from turncoat.evaluation.planned import Planned
from turncoat.evaluation.results import Bools, Evaluation, Flag
from turncoat.evaluation.runner import Runner
from turncoat.evaluation.suite import Suite
from turncoat.randomness import generator

FULL = Planned(autoattack)


def audit(runner: Runner, suite: Suite, threat: Threat, result: Evaluation) -> list[Flag]:
    """Estimate the overstatement and enter it into `result`; the flag that it raises, if any.

    Above a point, as with other attacks that find what the suite does not, it is flagged; it blocks once the whole
    interval lies above a point, so that chance in the draw of the sample blocks nothing.

    Nothing is done where AutoAttack has met every image anyway, and on random networks, which it is not made for: a
    ladder of doublings says there what more would take.
    """
    if not suite.audit or runner.random or any(_whole(result, name, plan) for name, plan in suite.attacks.items()):
        return []
    drawn = sample(result.worst, suite.audit, runner.seed)
    fell = drawn & ~runner.attack("audit", FULL, threat, drawn, "AutoAttack on a sample")[0].right
    found = estimate(int(fell.sum()), int(drawn.sum()), int(result.worst.sum()), len(result.label))
    result.overstatement = found
    if found["points"] <= SHARE or found["fallen"] < FEWEST:
        return []
    detail = (
        f"AutoAttack turns {found['fallen']} of {found['n']} standing images: the worst case is about "
        f"{found['points']:.1f} points too high ({found['low']:.1f} to {found['high']:.1f})"
    )
    return [Flag("audit", detail, blocks=found["low"] > SHARE)]


def _whole(result: Evaluation, name: str, plan: Planned) -> bool:
    """Whether this entry has been AutoAttack in full, on the network as it is and under the threat it is judged by."""
    full = plan.function is autoattack and plan.settings in ({}, {"version": "standard"}, {"version": "plus"})
    return full and name in result.in_worst and not (plan.alone or plan.bpda or plan.fixed)


def sample(standing: Bools, most: int, seed: int) -> Bools:
    """(n,) bool: `most` of the standing images, drawn without replacement; all of them where they are fewer."""
    places = np.flatnonzero(standing)
    order = torch.randperm(len(places), generator=generator(seed, "audit")).numpy()
    drawn = np.zeros_like(standing)
    drawn[places[order[:most]]] = True
    return drawn


def estimate(fallen: int, looked: int, standing: int, images: int) -> dict[str, float]:
    """The record's entry: `points` of all images by which the worst case is too high, with its 95 % interval.

    Args:
        fallen, looked: images that fell, of those drawn. standing: in the worst case, of all `images`.

    Wilson's interval of the share that falls, scaled by the share that stands; no interval where all were drawn.
    """
    from scipy.stats import binomtest  # here: slow to import, seldom needed

    share = fallen / looked if looked else 0.0
    low = high = share
    if 0 < looked < standing:
        interval = binomtest(fallen, looked).proportion_ci(0.95, method="wilson")
        low, high = float(interval.low), float(interval.high)
    scaled = {
        name: round(100 * of * standing / images, 4) for name, of in (("points", share), ("low", low), ("high", high))
    }
    return {"n": looked, "fallen": fallen, **scaled}
