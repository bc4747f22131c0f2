"""What no image by image attack shows: accuracy on shifted and corrupted images, and universal perturbations."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turncoat.attacks import CORRUPTIONS, SHIFTS, Counter, Threat, perturb
from turncoat.errors import TurncoatError
from turncoat.evaluation.results import Evaluation, counted
from turncoat.evaluation.runner import Runner
from turncoat.evaluation.suite import UNIVERSAL, Suite
from turncoat.randomness import generator

Shift = Callable[[Tensor, int, torch.Generator | None], Tensor]
Images = tuple[Tensor, Tensor]


def scenes(runner: Runner, suite: Suite, threat: Threat, held_out: Images | None, result: Evaluation) -> None:
    """Enter into `result` what the suite asks for.

    Args:
        held_out: images and labels, none of them tested, that universal perturbations are made on.
    """
    shifts = {name: SHIFTS[name] for name in suite.shifts}
    corruptions = {name: CORRUPTIONS[name] for name in suite.corruptions}
    result.shifts = _shifted(runner, "shift", shifts, suite, result)
    result.corruptions = _shifted(runner, "corruption", corruptions, suite, result)
    if suite.universal:
        if held_out is None:
            raise TurncoatError(f"suite {suite.name}: universal perturbations need `held_out` images")
        result.universal = _universal(runner, dict(suite.universal), threat, held_out, result)


def _shifted(
    runner: Runner, kind: str, chosen: Mapping[str, Shift], suite: Suite, result: Evaluation
) -> list[dict[str, Any]]:
    rows = []
    for name, shift in chosen.items():
        for severity in suite.severities:

            def work(name: str = name, shift: Shift = shift, severity: int = severity) -> Tensor:
                right = []
                places = np.arange(len(runner.images))
                parts = (part.split(runner.batch_size) for part in (runner.images, runner.labels))
                for number, (images, labels) in enumerate(zip(*parts, strict=True)):
                    source = generator(runner.seed, kind, name, severity, number, device=images.device)
                    seen = shift(images, severity, source)
                    here = places[number * runner.batch_size :][: len(images)]
                    right.append(runner.logits(seen, here).argmax(1) == labels)
                return torch.cat(right)

            right = runner.noted(f"{kind} {name} {severity}", work)
            result.scenes[f"{kind} {name} {severity}"] = right
            rows.append({kind: name, "severity": severity, **counted(right)})
    return rows


def _universal(
    runner: Runner, settings: dict[str, Any], threat: Threat, held_out: Images, result: Evaluation
) -> list[dict[str, Any]]:
    """How many images of other classes one perturbation a class sends to it; made anew against this very network."""
    make = UNIVERSAL[settings.pop("form")]
    rows = []
    for target in range(runner.clean_logits.shape[1]):
        others = runner.labels != target
        if not bool(others.any()):  # all images are of this class
            continue

        def work(target: int = target, others: Tensor = others) -> Tensor:
            source = generator(runner.seed, "universal", target, device=runner.images.device)
            counter = Counter(runner.whole)
            change = make(counter, *held_out, threat, target=target, generator=source, **settings)
            runner.passes["forward"] += counter.forwards
            runner.passes["backward"] += counter.backwards
            changed = perturb(runner.images[others], change)
            stayed = torch.ones_like(others)
            stayed[others] = runner.logits(changed, np.flatnonzero(others.cpu().numpy())).argmax(1) != target
            return stayed

        stayed = runner.noted(f"universal {target}", work)
        result.scenes[f"universal {target}"] = stayed
        rows.append({"target": target, "reached": int((~stayed).sum()), "n": int(others.sum())})
    return rows
