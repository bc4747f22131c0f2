"""One network against a suite: accuracy under each attack, example by example, in the worst case, and what to doubt.

An attack meets only the images that the network classifies rightly: the others are lost already. What it returns is
checked against the threat and classified anew by a fresh float32 forward pass; nothing that an attack believes counts.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from turncoat.attacks import Threat, pgd
from turncoat.errors import TurncoatError
from turncoat.evaluation import audit, flags, ladder, probes
from turncoat.evaluation.journal import Journal
from turncoat.evaluation.planned import Planned
from turncoat.evaluation.results import Evaluation, Outcome, counted
from turncoat.evaluation.runner import Runner
from turncoat.evaluation.scenes import scenes
from turncoat.evaluation.second_look import Logarithm, looks, second_look
from turncoat.evaluation.suite import Suite, plan_suite

CURVE = Planned(pgd, {"steps": 20})  # the attack of the security curve


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    suite: Suite | Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    stored: Mapping[str, Tensor] | None = None,
    held_out: tuple[Tensor, Tensor] | None = None,
    journal: Journal | None = None,
    scope: str = "best",
    checks: bool = True,
) -> Evaluation:
    """Run `suite` on a network of one's own or of the study.

    Args:
        model: any module from float32 images in [0, 1] to logits; it is put into eval mode.
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64; on the model's device.
        suite: a `Suite`, or attacks as params.yaml writes them: `{"pgd-20": {"attack": "pgd", "steps": 20}}`.
        seed: of all that the attacks and a random network draw.
        stored: adversarial images by name, for the suite's transfer attacks; each as many as `images`.
        held_out: images and labels apart from those tested, where the suite makes universal perturbations.
        journal: where finished batches are kept, so that a killed evaluation goes on; of this very evaluation only.
        scope: tells the entries of several networks in one journal apart.
        checks: look for reasons to doubt the result, and attack once more where there are some.

    Raises:
        TurncoatError: images outside [0, 1] or of a wrong type, labels or outputs that do not fit, an attack that left
            its ball, a transfer attack that names images that are not there.
    """
    suite = _suite(suite)
    _refuse(images, labels)
    runner = Runner(
        model.eval(),
        images,
        labels,
        seed=seed,
        batch_size=suite.batch_size,
        journal=Journal() if journal is None else journal,
        scope=scope,
        stored=stored,
    )
    outputs = runner.clean_logits
    if outputs.dim() != 2 or int(labels.max()) >= outputs.shape[1]:
        raise TurncoatError(f"model: outputs {tuple(outputs.shape)}, but labels reach up to {int(labels.max())}")
    if not bool(torch.isfinite(outputs).all()):
        raise TurncoatError("model: outputs on clean images are not finite; nothing can be measured on this network")
    probabilities = flags.is_probabilities(outputs)
    result = Evaluation(
        label=labels.cpu().numpy(),
        prediction=outputs.argmax(1).cpu().numpy(),
        confidence=(outputs if probabilities else outputs.softmax(1)).amax(1).cpu().numpy(),
        batch_size=runner.batch_size if suite.batch_size == "auto" else 0,
    )
    different = probes.deviation(runner)
    runner.random = different > flags.DEVIATION
    _overhead(runner, result)

    met = {name: planned for name, planned in suite.attacks.items() if planned.meets(model, runner.random)}
    for number, (name, planned) in enumerate(met.items(), 1):
        ladder.run(runner, result, name, planned, threat, f"{number}/{len(met)}")
    _curve(runner, suite, threat, result)
    scenes(runner, suite, threat, held_out, result)
    if checks:
        _doubt(runner, suite, threat, result, different, probabilities)
        result.flags += [*ladder.unlevelled(result), *audit.audit(runner, suite, threat, result)]
    _overhead(runner, result)
    return result


def _suite(given: Any) -> Suite:
    if isinstance(given, Suite):
        return given
    if isinstance(given, Mapping):
        return plan_suite("given", given)
    raise TurncoatError(
        f"suite: attacks by name, {{'pgd-20': {{'attack': 'pgd', 'steps': 20}}}}, or a Suite wanted (got {given!r}); "
        "a suite of params.yaml is build_suite(name, load().suites[name])"
    )


def _curve(runner: Runner, suite: Suite, threat: Threat, result: Evaluation) -> None:
    """Accuracy under PGD-20 over the radii. Who falls within a smaller radius has fallen: only the rest is attacked."""
    done = next((name for name, planned in suite.attacks.items() if planned == CURVE), None)
    found = Outcome.of(result.clean, runner.random)
    for factor in suite.epsilons:
        epsilon = threat.epsilon * factor
        radius = Threat(threat.norm, min(epsilon, 1.0) if threat.norm == "linf" else epsilon)
        if factor == 1 and done:
            found = found.worse(result.outcome([done]))
        else:
            name = f"curve {radius.epsilon:.6g}"
            found = found.worse(runner.attack(name, CURVE, radius, found.open, f"epsilon {radius.epsilon:.3g}")[0])
        result.curve.append({"epsilon": radius.epsilon, **counted(found.right)})


def _doubt(
    runner: Runner, suite: Suite, threat: Threat, result: Evaluation, different: float, probabilities: bool
) -> None:
    """Raise flags; where one would block, look a second time and keep what that does not settle."""

    def averaged() -> bool:
        return any(name in result.correct and plan.draws > 0 for name, plan in planned.items())

    planned = dict(suite.attacks)
    evidence = flags.Evidence(
        result=result,
        planned=planned,
        brightest=float(runner.images.max()),
        deviation=different,
        averaged=averaged(),
        probabilities=probabilities,
        undone=False,
        linear=probes.on_a_linear_classifier(runner, planned, threat),
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
            linear=probes.on_a_linear_classifier(runner, planned, threat),
            moved=moved,
            **_probed(runner, threat, result, second=True),
        )
        raised = flags.settled(raised, flags.check(again))
    result.flags = [*raised, *flags.overstated(result, suite.attacks, doubt)]


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
    for way, count in runner.take_passes().items():
        result.overhead[way] = round(result.overhead[way] + count, 3)


def _refuse(images: Tensor, labels: Tensor) -> None:
    if images.dtype != torch.float32 or images.dim() != 4 or not len(images):
        raise TurncoatError(f"images: float32 (n, c, h, w) wanted, got {images.dtype} {tuple(images.shape)}")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise TurncoatError(f"labels: int64 ({len(images)},) wanted, got {labels.dtype} {tuple(labels.shape)}")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        hint = "divide them by 255" if high > 1 and low >= 0 else "undo their normalisation: it belongs into the model"
        raise TurncoatError(f"images: values in [0, 1] wanted, these reach from {low:g} to {high:g}; {hint}")
