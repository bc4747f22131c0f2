"""A network for segmentation or detection on clean and attacked images: counts image by image, measures, doubts.

The attack is PGD on the network's own loss, all of its terms; what it returns is checked against the threat and given
to the network anew. The measures are those of the task: mIoU and pixel accuracy, or COCO's average precision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from turncoat.attacks import Threat, ascent, input_gradient
from turncoat.attacks.threat import check_inside
from turncoat.data.targets import VOID, Task
from turncoat.errors import TurncoatError
from turncoat.evaluation.journal import Journal
from turncoat.evaluation.results import Flag
from turncoat.overlap import Matches
from turncoat.randomness import generator
from turncoat.settings import SuiteSettings
from turncoat.strict import Strict, validate
from turncoat.training.agreement import PRIMARY, by_class, counted, measures

LOOKED_AT = 25  # images that a second look attacks with more steps
MORE = 4  # times as many steps
TOLERATED = 2.0  # points that more steps may take before the attack counts as too weak
DEAD = 0.01  # share of images that may be without a gradient, or whose loss the attack may fail to raise
SHOWN = 8  # first images whose findings are kept for figures

Counts = NDArray[np.int64] | Matches


class DenseAttack(Strict):
    """One attack of a suite for segmentation and detection."""

    attack: Literal["pgd", "fgsm"]
    steps: int = Field(20, gt=0)
    relative_step: float = Field(0.25, gt=0, description="in units of epsilon")
    start: Literal["uniform", "gaussian", "none"] = "uniform"


def plan(name: str, suite: SuiteSettings) -> dict[str, DenseAttack]:
    """The attacks of a suite, checked.

    Raises:
        TurncoatError: an attack that has no meaning without one label an image, or what no such suite has.
    """
    where = f"suites.{name}"
    for field_ in ("radii", "shifts", "corruptions", "universal"):
        if getattr(suite, field_):
            raise TurncoatError(f"{where}.{field_}: not for segmentation and detection; name another study.dense.suite")
    found = {}
    for key, raw in suite.attacks.items():
        if raw.get("attack") not in ("pgd", "fgsm"):
            raise TurncoatError(
                f"{where}.attacks.{key}.attack: {raw.get('attack')} needs one label an image; for segmentation and "
                "detection there are pgd, fgsm"
            )
        made = validate(DenseAttack, dict(raw), f"{where}.attacks.{key}")
        if made.attack == "fgsm":
            made = made.model_copy(update={"steps": 1, "relative_step": 1.0, "start": "none"})
        found[key] = made
    return found


@dataclass
class DenseEvaluation:
    """What a network did, by condition: "clean", then the name of each attack.

    Attributes:
        counts: confusions or matches, image by image. losses: (n,) the network's own. passes: forward and backward an
            image. shown: what was found in the first images, `Segmenter.found` or `Detector.found`.
    """

    task: Task
    n: int
    counts: dict[str, Counts] = field(default_factory=dict)
    losses: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    passes: dict[str, dict[str, float]] = field(default_factory=dict)
    shown: dict[str, list[Any]] = field(default_factory=dict)
    flags: list[Flag] = field(default_factory=list)

    def measures(self, condition: str) -> dict[str, float]:
        """All measures of the task, shares in [0, 1]."""
        return measures(self.counts[condition])

    def primary(self, condition: str) -> float:
        """The one that networks are compared by."""
        return self.measures(condition)[PRIMARY[self.task]]

    def by_class(self, condition: str) -> list[float | None]:
        """IoU or average precision of each class."""
        return by_class(self.counts[condition])


def evaluate_dense(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    task: Task,
    classes: int,
    threat: Threat,
    attacks: Mapping[str, DenseAttack],
    *,
    seed: int = 0,
    batch_size: int = 50,
    journal: Journal | None = None,
    scope: str = "best",
    checks: bool = True,
) -> DenseEvaluation:
    """Run the attacks on a network for segmentation or detection, put into eval mode.

    Args:
        model: with `losses(outputs, targets)` and `found(outputs)`, as `Segmenter` and `Detector` have them.
        images: (n, c, h, w) float32 in [0, 1]. targets: as `turncoat.data.targets` has them.
        seed: of the starts of the attacks. journal: where finished batches are kept.
        checks: look for reasons to doubt the attack.

    Raises:
        TurncoatError: outputs that are not finite, or an attack that left its ball.
    """
    network: Any = model.eval()
    result = DenseEvaluation(task, len(images))
    kept = Journal() if journal is None else journal
    for name, attack in {"clean": None, **attacks}.items():
        batches: list[dict[str, Any]] = []
        for start in range(0, len(images), batch_size):
            here = slice(start, start + batch_size)
            source = generator(seed, "evaluate", name, start, device=images.device)
            key = f"{scope} {name} {attack.model_dump() if attack else ''} {start} {batch_size}"

            def work(here: slice = here, source: torch.Generator = source, attack: DenseAttack | None = attack) -> Any:
                return _batch(network, images[here], targets[here], threat, attack, source)

            batches.append(kept.once(key, work))
        found = [_unpacked(task, batch["found"], targets) for batch in batches]
        result.counts[name] = counted(task, found, targets, classes)
        result.losses[name] = np.concatenate([batch["losses"] for batch in batches]).astype(np.float32)
        steps = attack.steps if attack else 0
        result.passes[name] = {"forward": float(steps + 1 + bool(steps)), "backward": float(steps)}
        result.shown[name] = [one for batch in found for one in batch][:SHOWN]
    if checks and attacks:
        result.flags = _doubts(network, images, targets, classes, threat, attacks, result, seed)
    return result


def _batch(
    network: Any, images: Tensor, targets: Tensor, threat: Threat, attack: DenseAttack | None, source: torch.Generator
) -> dict[str, Any]:
    """What was found in some images and the loss of each, as JSON holds it."""
    if attack is not None:
        adversarial = _attacked(network, images, targets, threat, attack, source)
        check_inside(adversarial, images, threat, attack.attack)
        images = adversarial
    with torch.no_grad():
        outputs = network(images)
        losses = network.losses(outputs, targets)
        if not bool(torch.isfinite(losses).all()):
            raise TurncoatError("model: its loss is not finite; nothing can be measured on this network")
        return {"losses": losses.tolist(), "found": _packed(network.found(outputs))}


def _attacked(
    network: Any, images: Tensor, targets: Tensor, threat: Threat, attack: DenseAttack, source: torch.Generator
) -> Tensor:
    return ascent(
        network,
        images,
        targets,
        threat,
        steps=attack.steps,
        relative_step=attack.relative_step,
        start=attack.start,
        generator=source,
        keep_highest=True,
    )


def _packed(found: Any) -> Any:
    if isinstance(found, Tensor):
        return {"shape": list(found.shape), "bytes": found.cpu().numpy().tobytes().hex()}
    return [{name: values.cpu().tolist() for name, values in one.items()} for one in found]


def _unpacked(task: Task, found: Any, like: Tensor) -> Any:
    if task == "segmentation":
        pixels = np.frombuffer(bytes.fromhex(found["bytes"]), np.uint8).reshape(found["shape"]).copy()
        return torch.from_numpy(pixels).to(like.device)
    return [
        {
            "boxes": torch.tensor(one["boxes"], dtype=torch.float32).reshape(-1, 4),
            "scores": torch.tensor(one["scores"], dtype=torch.float32),
            "labels": torch.tensor(one["labels"], dtype=torch.int64),
        }
        for one in found
    ]


def _doubts(
    network: Any,
    images: Tensor,
    targets: Tensor,
    classes: int,
    threat: Threat,
    attacks: Mapping[str, DenseAttack],
    result: DenseEvaluation,
    seed: int,
) -> list[Flag]:
    """Gradients that are not there, an attack that raises no loss, and one that more steps would beat."""
    flags = []
    there = _with_targets(result.task, targets)  # an image without any may have nothing to lose
    name = max(attacks, key=lambda one: attacks[one].steps)
    few = slice(0, LOOKED_AT)
    gradient, _, _ = input_gradient(network, images[few], network.losses, targets[few])
    flat = gradient.flatten(1)
    still = ((flat.abs().amax(1) == 0) | ~torch.isfinite(flat).all(1)) & there[few]
    dead = int(still.sum()) / max(1, int(there[few].sum()))
    if dead > DEAD:
        flags.append(Flag("zero-gradient", f"{dead:.0%} of images have no finite gradient but zero", blocks=True))
    asleep = int(((result.losses[name] <= result.losses["clean"]) & there.cpu().numpy()).sum())
    if asleep > max(1, DEAD * int(there.sum())):
        detail = f"{name} does not raise the loss of {asleep} of {int(there.sum())} images"
        flags.append(Flag("idle-attack", detail, blocks=True, attack=name))
    longer = attacks[name].model_copy(update={"steps": MORE * attacks[name].steps})
    found = []
    for attack in (attacks[name], longer):  # from the same start, so that only the further steps count
        source = generator(seed, "second look", device=images.device)
        adversarial = _attacked(network, images[few], targets[few], threat, attack, source)
        with torch.no_grad():
            seen = [network.found(network(adversarial))]
        found.append(measures(counted(result.task, seen, targets[few], classes))[PRIMARY[result.task]])
    if 100 * (found[0] - found[1]) > TOLERATED:
        left = [f"{100 * value:.1f}" for value in found]
        detail = f"on {len(images[few])} images {name} leaves {left[0]}, {longer.steps} steps {left[1]}"
        flags.append(Flag("more-steps", detail, blocks=True, attack=name))
    return flags


def _with_targets(task: Task, targets: Tensor) -> Tensor:
    """Which images have something to be found, (n,) bool."""
    if task == "segmentation":
        return (targets != VOID).flatten(1).any(1)
    return (targets[..., 0] >= 0).any(1)


__all__: Sequence[str] = ["DenseAttack", "DenseEvaluation", "evaluate_dense", "plan"]
