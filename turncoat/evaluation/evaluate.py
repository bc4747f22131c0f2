"""One network against a suite: accuracy under each attack, example by example, in the worst case, and what to doubt.

An attack meets only the images that the network classifies rightly: the others are lost already. What it returns is
checked against the threat and classified anew by a fresh float32 forward pass; nothing that an attack believes counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from turncoat.attacks import Threat, pgd
from turncoat.errors import TurncoatError
from turncoat.evaluation import audit, entry, flags, ladder, outside, probes
from turncoat.evaluation.journal import Journal
from turncoat.evaluation.keeper import Keeper
from turncoat.evaluation.planned import Planned
from turncoat.evaluation.pristine import Pristine, drawing
from turncoat.evaluation.results import Evaluation, Flag, Outcome, counted
from turncoat.evaluation.runner import Runner
from turncoat.evaluation.scenes import scenes
from turncoat.evaluation.second_look import Logarithm, looks, second_look
from turncoat.evaluation.steadiness import Steadiness
from turncoat.evaluation.suite import Suite
from turncoat.randomness import seed_of
from turncoat.settings import Auto

CURVE = Planned(pgd, {"steps": 20})  # the attack of the security curve


def evaluate(
    model: nn.Module | Callable[[Tensor], Any],
    images: Any,
    labels: Any,
    threat: Threat,
    suite: Suite | Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    batch_size: int | Auto | None = None,
    keep: bool | Keeper = False,
    black_box: bool = False,
    stored: Mapping[str, Tensor] | None = None,
    held_out: tuple[Tensor, Tensor] | None = None,
    journal: Journal | None = None,
    scope: str = "best",
    checks: bool = True,
    measured: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """Run `suite` on a network of one's own or of the study.

    The network itself is not run, where it can be copied: copies in eval mode are attacked, and a fresh one, which has
    seen nothing yet, gives each verdict. Nothing of the caller's changes: module, modes, tensors, global generators.

    Args:
        model: any module from float32 images in [0, 1] to logits; or a bare function, whose answers alone are seen.
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64; on the model's device. Arrays and lists are taken.
            A float32 `np.memmap` stays on the disk. `images` may be a DataLoader of both, with `labels` None: it is
            gone through once, into a file that goes away with the process.
        threat: or (norm, epsilon).
        suite: a `Suite`, or attacks as params.yaml writes them: `{"pgd-20": {"attack": "pgd", "steps": 20}}`.
        seed: of all that the attacks and a random network draw.
        batch_size: images that an attack works on at a time; None: the suite's.
        keep: return the images that brought the network down, as `result.adversarial`.
        black_box: leave out, and name in a flag, all of the suite that needs gradients.
        stored: adversarial images by name, for the suite's transfer attacks; each as many as `images`.
        held_out: images and labels apart from those tested, where the suite makes universal perturbations.
        journal: where finished batches are kept, so that a killed evaluation goes on; of this very evaluation only.
        scope: tells the entries of several networks in one journal apart.
        checks: look for reasons to doubt the result, attack once more where there are some, and audit the worst case
            where the suite says so (audit.py). False: no flag of theirs is raised, no second look taken, no audit made.
            Whether the network is the same to attacks and verdicts is looked at always.
        measured: called with the result before it is checked, under a flag that blocks, so that nothing measured is
            lost should a check take long or be killed. One that fails costs only itself: a flag says so and blocks.

    Raises:
        TurncoatError: before any attack: images outside [0, 1] or of a wrong type, labels or outputs that do not fit, a
            suite that asks for images that are not there or are of another kind. Later: an attack that left its ball.
    """
    suite, threat = entry.as_suite(suite, batch_size), entry.as_threat(threat)
    network, blind, suite, left_out = outside.as_network(model, suite, black_box)
    keeper = Keeper() if keep is True else keep or None
    if keeper is not None:
        keeper.threat = threat
    with torch.inference_mode(False), drawing(seed_of(seed, "evaluate")):
        if outside.is_loader(images):
            images, labels = outside.collected(images, labels)
        images = entry.as_images(images)
        labels = entry.as_labels(labels, images)
        entry.try_scenes(suite, images)
        held, moved = entry.stored_images(suite, stored, images, threat)
        pristine = Pristine(network)
        try:
            asked = entry.first_answer(pristine, images, labels, seed)
            runner = Runner(
                pristine,
                images,
                labels,
                seed=seed,
                batch_size=suite.batch_size,
                journal=Journal() if journal is None else journal,
                scope=scope,
                stored=held,
                keeper=keeper,
            )
            runner.passes["forward"] += asked
            if suite.universal:
                held_out = entry.held_out_images(held_out, images, runner.clean_logits.shape[1])
            result = _evaluate(runner, suite, threat, held_out, checks and not blind, measured)
        finally:
            pristine.close()
        result.flags += [*moved, *entry.spoilt(pristine), *outside.unseen(blind, left_out)]
        if keeper is not None:
            result.adversarial = keeper.found(result, tuple(images.shape[1:]))
        return result


def _evaluate(
    runner: Runner,
    suite: Suite,
    threat: Threat,
    held_out: tuple[Tensor, Tensor] | None,
    checks: bool,
    measured: Callable[[Evaluation], None] | None,
) -> Evaluation:
    outputs = runner.clean_logits
    if not bool(torch.isfinite(outputs).all()):
        raise TurncoatError("model: outputs on clean images are not finite; nothing can be measured on this network")
    probabilities = flags.is_probabilities(outputs)
    result = Evaluation(
        label=runner.labels.cpu().numpy(),
        prediction=outputs.argmax(1).cpu().numpy(),
        confidence=(outputs if probabilities else outputs.softmax(1)).amax(1).cpu().numpy(),
        batch_size=runner.batch_size if suite.batch_size == "auto" else 0,
    )
    different = probes.deviation(runner)
    runner.random = different > flags.DEVIATION
    steadiness = Steadiness(runner, threat)
    unsteady = steadiness.first()
    _overhead(runner, result)

    stepwise = any(planned.stepwise for planned in suite.attacks.values()) and probes.stepwise(runner)
    _overhead(runner, result)
    met = {
        name: planned for name, planned in suite.attacks.items() if planned.meets(runner.whole, runner.random, stepwise)
    }
    for number, (name, planned) in enumerate(met.items(), 1):
        ladder.run(runner, result, name, planned, threat, f"{number}/{len(met)}")
    _curve(runner, suite, threat, result)
    scenes(runner, suite, threat, held_out, result)
    raised = list(unsteady)
    if checks and measured is not None:
        result.flags = [*unsteady, Flag("unchecked", "the checks of the result have not been done", blocks=True)]
        measured(result)
    if checks:
        raised += _costing_itself(lambda: _doubt(runner, suite, threat, result, different, probabilities))
        raised += ladder.unlevelled(result)
        raised += _costing_itself(lambda: audit.audit(runner, suite, threat, result))
    result.flags = [*raised, *_costing_itself(steadiness.last)]
    _overhead(runner, result)
    return result


def _curve(runner: Runner, suite: Suite, threat: Threat, result: Evaluation) -> None:
    """Accuracy under PGD-20 over the radii. Who falls within a smaller radius has fallen: only the rest is attacked."""
    done = next((name for name, planned in suite.attacks.items() if planned == CURVE), None)
    found = Outcome.of(result.clean, runner.random)
    for factor in suite.radii:
        epsilon = threat.epsilon * factor
        radius = Threat(threat.norm, min(epsilon, 1.0) if threat.norm == "linf" else epsilon)
        if factor == 1 and done:
            found = found.worse(result.outcome([done]))
        else:
            name = f"curve {radius.epsilon:.6g}"
            found = found.worse(runner.attack(name, CURVE, radius, found.open, f"epsilon {radius.epsilon:.3g}")[0])
        result.curve.append({"epsilon": radius.epsilon, **counted(found.right)})


def _costing_itself(check: Callable[[], list[Flag]]) -> list[Flag]:
    """The flags of a check; should it fail, whatever it was that failed, one that says so and blocks.

    What was measured stays; only nothing may be concluded from it.
    """
    try:
        return check()
    except Exception as error:
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        return [Flag("unchecked", f"the checks of the result could not all be done: {said}", blocks=True)]


def _doubt(
    runner: Runner, suite: Suite, threat: Threat, result: Evaluation, different: float, probabilities: bool
) -> list[Flag]:
    """Raise flags; where one would block, look a second time and keep what that does not settle."""

    def averaged() -> bool:
        return any(name in result.correct and plan.draws > 0 for name, plan in planned.items())

    planned, failed = dict(suite.attacks), list[Flag]()
    evidence = flags.Evidence(
        result=result,
        planned=planned,
        brightest=float(runner.images.max()),
        deviation=different,
        averaged=averaged(),
        probabilities=probabilities,
        undone=False,
        linear=_linear(runner, planned, threat, failed),
        **_probed(runner, threat, result, second=False),
    )
    raised = flags.check(evidence)
    doubt = any(flag.blocks for flag in raised)
    if doubt:
        if probabilities:  # the same predictions, with gradients
            runner.aim(Logarithm(runner.target, runner.images[:1]))
        _overhead(runner, result)
        moved = second_look(runner, result, threat)
        planned |= looks(runner.random)
        again = replace(
            evidence,
            averaged=averaged(),
            undone=probabilities,
            linear=_linear(runner, planned, threat, failed),
            moved=moved,
            **_probed(runner, threat, result, second=True),
        )
        raised = flags.settled(raised, flags.check(again))
    return [*raised, *flags.overstated(result, suite.attacks, doubt), *failed[:1]]


def _linear(
    runner: Runner, planned: Mapping[str, Planned], threat: Threat, failed: list[Flag]
) -> tuple[int, int] | None:
    """What the attacks find on a linear classifier: a check of the suite, which costs only itself should it fail."""
    try:
        return probes.on_a_linear_classifier(runner, planned, threat)
    except (MemoryError, RuntimeError) as error:  # torch tells a lack of memory by the latter
        said = next(iter(str(error).splitlines()), "out of memory")
        failed.append(Flag("closed-form", f"the check on a linear classifier could not be done: {said}", blocks=False))
        return None


def _probed(runner: Runner, threat: Threat, result: Evaluation, second: bool) -> dict[str, Any]:
    """Gradients of what stands, and who stands where all is within reach; nothing where next to nothing stands."""
    standing = result.worst
    if flags.points(standing) <= flags.NOTHING_LEFT:
        standing = np.zeros_like(standing)
    zero, broken = probes.dead_gradients(runner, standing, second)
    reachable = standing & (len(set(result.prediction)) > 1)  # a network with one answer for all cannot be turned
    return {"zero": zero, "broken": broken, "unbounded": probes.unbounded(runner, reachable, threat.norm, second)}


def _overhead(runner: Runner, result: Evaluation) -> None:
    """Book the passes since the last attack: clean accuracy, curve, checks."""
    runner.passes["forward"] += runner.take_spots()
    for way, count in runner.take_passes().items():
        result.overhead[way] = round(result.overhead[way] + count, 3)
