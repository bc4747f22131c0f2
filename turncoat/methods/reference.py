"""A network trained beside the arm, in `prepare`: the one that labels the unlabelled or picks out the misclassified.

It starts from a random initialisation, never from the baseline, and sees only the split that it is given.
"""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from turncoat import models
from turncoat.data.batches import DeviceSplit
from turncoat.methods.base import AdversarialSettings, Batch, Method, Parts, Task, accuracy, attack, cross_entropy
from turncoat.settings import AttackSettings, ComputeSettings, TrainingSettings
from turncoat.training import fit, initialised, resolve

CLEAN = AttackSettings(radius=0)  # an attack that leaves the images as they are


class _Reference(Method[AdversarialSettings]):
    """Cross-entropy on attacked images, or on clean ones where the radius is 0."""

    selection = "validation_clean"

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        logits = self.model(attack(self.model, batch, self.task.threat, self.settings.attack))
        return cross_entropy(logits, batch.labels), {"train_accuracy": accuracy(logits, batch.labels)}


def train_reference(
    like: nn.Module,
    train: DeviceSplit,
    schedule: TrainingSettings,
    task: Task,
    seed: int,
    under: AttackSettings = CLEAN,
) -> nn.Module:
    """Train a fresh network of the architecture of `like` on `train` for the whole schedule; returned in eval mode."""
    compute = resolve(ComputeSettings(device="cuda" if train.images.is_cuda else "cpu"))
    method = _Reference(AdversarialSettings(method="reference", attack=under), task)
    spec: Mapping[str, Any] = like.spec  # type: ignore[assignment]
    method.model = compute.place(initialised(seed, lambda: models.build(spec, models.factories(spec))))
    network = copy.deepcopy(method.model)  # the trained one keeps the trainer's hooks
    # The last epoch's weights: no split is looked at to choose among them.
    outcome = fit(method, train, schedule, compute, seed=seed, validate=lambda model: {"validation_clean": 0.0})
    network.load_state_dict(outcome.last)
    return network.eval()
