"""One deployed network against a suite: accuracy under each attack, example by example, and in the worst case.

An attack meets only the images that the network classifies rightly: the others are lost already. What it returns is
checked against the threat and classified anew by a fresh float32 forward pass; nothing that an attack believes counts.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from turncoat.attacks import Counter, Threat, pgd
from turncoat.errors import TurncoatError
from turncoat.evaluation.suite import Planned, Suite
from turncoat.randomness import generator

TOLERANCE = 1e-6  # of the ball and of the box: what float32 addition may lose


@dataclass
class Evaluation:
    """What a network did. Arrays have one row an image; `correct` holds, per attack, who stayed right under it."""

    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    confidence: NDArray[np.float32]
    correct: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    passes: dict[str, dict[str, float]] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)

    @property
    def clean(self) -> NDArray[np.bool_]:
        return self.prediction == self.label

    @property
    def worst(self) -> NDArray[np.bool_]:
        """Who stayed right under every attack."""
        return np.logical_and.reduce([self.clean, *self.correct.values()])


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    suite: Suite,
    *,
    seed: int = 0,
    stored: Mapping[str, Tensor] | None = None,
) -> Evaluation:
    """Run `suite` on a network of one's own or of the study.

    Args:
        model: any module from float32 images in [0, 1] to logits; it is put into eval mode.
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64; on the model's device.
        stored: adversarial images by name, for the suite's transfer attacks; each as many as `images`.
        seed: of all that the attacks draw.

    Raises:
        TurncoatError: an attack left its ball, or a transfer attack names images that are not there.
    """
    model = Counter(model.eval())
    logits = torch.cat([_logits(model, batch) for batch in images.split(suite.batch_size)])
    probabilities = logits.softmax(1)
    result = Evaluation(
        label=labels.cpu().numpy(),
        prediction=logits.argmax(1).cpu().numpy(),
        confidence=probabilities.amax(1).cpu().numpy(),
    )
    bar = tqdm(suite.attacks.items(), disable=not sys.stderr.isatty(), leave=False, unit="attack")
    for name, planned in bar:
        bar.set_postfix_str(f"{name}, robust so far {result.worst.mean():.1%}")
        before = model.forwards, model.backwards
        if planned.function is None:
            result.correct[name] = _transfer(model, name, planned, images, labels, threat, suite, result, stored or {})
        else:
            result.correct[name] = _under_attack(
                model, planned, images, labels, threat, suite, result.clean, (seed, name)
            )
        result.passes[name] = {
            "forward": round((model.forwards - before[0]) / len(labels), 3),
            "backward": round((model.backwards - before[1]) / len(labels), 3),
        }
    curve_attack = Planned(pgd, {"steps": 20})
    for factor in suite.epsilons:
        radius = Threat(
            threat.norm, min(threat.epsilon * factor, 1.0) if threat.norm == "linf" else threat.epsilon * factor
        )
        right = _under_attack(model, curve_attack, images, labels, radius, suite, result.clean, (seed, "curve"))
        result.curve.append({"epsilon": radius.epsilon, "correct": int(right.sum()), "n": len(right)})
    return result


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = model(images)
    return logits.float()


def _under_attack(
    model: nn.Module,
    planned: Planned,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    suite: Suite,
    clean: NDArray[np.bool_],
    key: tuple[int, str],
) -> NDArray[np.bool_]:
    right = torch.from_numpy(clean.copy()).to(labels.device)
    for number, index in enumerate(torch.nonzero(right)[:, 0].split(suite.batch_size)):
        source = generator(*key, number, device=images.device)
        adversarial = planned(model, images[index], labels[index], threat, source)
        check_inside(adversarial, images[index], threat, key[1])
        right[index] = _logits(model, adversarial).argmax(1) == labels[index]
    return right.cpu().numpy()


def _transfer(
    model: nn.Module,
    name: str,
    planned: Planned,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    suite: Suite,
    result: Evaluation,
    stored: Mapping[str, Tensor],
) -> NDArray[np.bool_]:
    if planned.stored not in stored or len(stored[planned.stored]) < len(images):
        have = ", ".join(stored) or "none"
        raise TurncoatError(f"attack {name}: no stored images {planned.stored!r} for this data set; there are {have}")
    adversarial = stored[planned.stored][: len(images)].to(images.device)
    check_inside(adversarial, images, threat, name)
    right = torch.cat([_logits(model, batch).argmax(1) for batch in adversarial.split(suite.batch_size)]) == labels
    return right.cpu().numpy() & result.clean


def check_inside(adversarial: Tensor, images: Tensor, threat: Threat, name: str) -> None:
    """Refuse adversarial images outside ball or box: no result may rest on them.

    Raises:
        TurncoatError: names the attack and by how much it left.
    """
    over = float((threat.distance(adversarial, images) - threat.epsilon).max())
    outside = float(torch.maximum(-adversarial.min(), adversarial.max() - 1))
    if not (over <= TOLERANCE * max(1.0, threat.epsilon) and outside <= TOLERANCE):
        raise TurncoatError(
            f"attack {name}: left its threat (ball by {over:.2e}, box by {outside:.2e}): a fault of the attack"
        )


def counted(right: NDArray[np.bool_]) -> dict[str, Any]:
    """`{"correct", "n"}`: integers, so that nothing is lost to rounding."""
    return {"correct": int(right.sum()), "n": len(right)}
