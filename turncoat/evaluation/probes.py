"""What the checks of flags.py need to know of a network beyond the suite's own results: a few passes, no more."""

from collections.abc import Mapping

import numpy as np
import torch

from turncoat.attacks import Threat, apgd, attacked, input_gradient, pgd
from turncoat.attacks.losses import ce, dlr
from turncoat.evaluation.closed_form import NearestMean, can_fall
from turncoat.evaluation.journal import Journal, packed, unpacked
from turncoat.evaluation.planned import Planned
from turncoat.evaluation.results import Bools
from turncoat.evaluation.runner import Runner
from turncoat.randomness import generator

PROBED = 100  # images; enough for a yes or no
OFF_STEP = 1e-3
TINY = 1e-5
MOST = 2e8  # images x classes x pixels of the linear classifier's check: some seconds


def deviation(runner: Runner) -> float:
    """Largest difference between two passes over the same images, relative to the largest logit."""
    images = runner.images[:PROBED]
    first, second = (runner.logits(images, np.arange(len(images)), draw) for draw in (1, 2))
    return float((first - second).abs().max() / first.abs().max().clamp_min(1e-12))


def stepwise(runner: Runner) -> bool:
    """Whether the answers move in steps, as rounding makes them: for most images a tiny shift changes no logit at all.

    There the gradient is none or a stand-in, and random search finds what it misses.
    """
    places = np.arange(len(runner.images[:PROBED]))
    source = generator(runner.seed, "steps")
    off = torch.rand(runner.images[:PROBED].shape, generator=source).to(runner.images.device) * OFF_STEP
    images = (runner.images[:PROBED] + off).clamp(0, 1 - TINY)  # a pixel of an image file may lie on the very step
    first, second = (runner.logits(given, places, 1) for given in (images, images + TINY))
    return bool((first == second).all(1).float().mean() > 0.5)


def dead_gradients(runner: Runner, standing: Bools, second: bool) -> tuple[Bools, Bools]:
    """Which standing images have an input gradient of zero, and which one that is not finite.

    Of the cross-entropy, that most attacks follow; in a second look of the DLR, which no scale of the logits saturates.
    """

    def work() -> dict[str, str]:
        zero, broken = np.zeros_like(standing), np.zeros_like(standing)
        for number, place in enumerate(np.array_split(np.flatnonzero(standing), _pieces(standing, runner.batch_size))):
            index = torch.from_numpy(place).to(runner.images.device)
            with attacked(runner.target, generator=generator(runner.seed, "gradients", number)):
                gradient, _, _ = input_gradient(
                    runner.target, runner.images[index], dlr if second else ce, runner.labels[index]
                )
            runner.passes["forward"] += len(place)
            runner.passes["backward"] += len(place)
            flat = gradient.flatten(1)
            zero[place] = (flat == 0).all(1).cpu().numpy()
            broken[place] = (~torch.isfinite(flat)).any(1).cpu().numpy()
        return {"zero": packed(zero), "broken": packed(broken)}

    if not standing.any():
        return np.zeros_like(standing), np.zeros_like(standing)
    before = dict(runner.passes)
    found = runner.journal.once(f"{runner.scope} gradients {second}", work)
    runner.passes = {way: before[way] + int(standing.sum()) for way in before}  # as a resumed run counts them
    return unpacked(found["zero"], len(standing)), unpacked(found["broken"], len(standing))


def _pieces(standing: Bools, batch_size: int) -> int:
    return max(1, -(-int(standing.sum()) // batch_size))


def unbounded(runner: Runner, standing: Bools, norm: str, second: bool) -> Bools:
    """Who still stands where every image can be turned into any other, by an attack that must then succeed."""
    size = runner.images[0].numel()
    reach = Threat(norm, {"linf": 1.0, "l2": float(size) ** 0.5, "l1": float(size)}[norm])
    planned = Planned(pgd, {"steps": 20})
    if second:
        planned = Planned(pgd, {"steps": 40}, eot=10) if runner.random else Planned(apgd, {"steps": 50, "loss": "dlr"})
    return runner.attack(f"unbounded {second}", planned, reach, standing, "every image within reach")[0].right


def on_a_linear_classifier(runner: Runner, planned: Mapping[str, Planned], threat: Threat) -> tuple[int, int] | None:
    """Adversarial images that the attacks find on a linear classifier of these images, and how many there are.

    Attacks run until all are found: mostly that is one step of the first. Those that the network itself met, but for
    BPDA, which needs a purifier. None where there are none to be found.
    """
    images, (present, labels) = runner.images[:PROBED], runner.labels[:PROBED].unique(return_inverse=True)
    few = max(1, int(MOST / (len(present) * images[0].numel())))  # classes without an image are none of its own
    images, labels = images[:few], labels[:few]
    model = NearestMean(images, labels).eval()
    right = model(images).argmax(1) == labels
    exist = right & can_fall(model, images, labels, threat)
    if not bool(exist.any()):
        return None
    linear = Runner(model, images, labels, seed=runner.seed, batch_size=PROBED, journal=Journal(), scope="linear")
    standing = exist.cpu().numpy()
    for name, plan in planned.items():
        if plan.function is not None and plan.threat is None and not plan.spatial and plan.meets(model, runner.random):
            standing = linear.attack(name, plan, threat, standing, "a linear classifier")[0].right
        if not standing.any():
            break
    return int((exist.cpu().numpy() & ~standing).sum()), int(exist.sum())
