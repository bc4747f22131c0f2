"""What a method is: settings, `prepare`, `loss`, `deploy`. A method's file adds what its paper adds, no more."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from torch import Tensor, nn
from torch.nn import functional

from turncoat.attacks import Threat, ascent, pgd
from turncoat.attacks.losses import Loss
from turncoat.data.batches import Batch, DeviceSplit
from turncoat.settings import ArmSettings, AttackSettings


class AdversarialSettings(ArmSettings):
    """An arm that attacks its own network while it trains."""

    attack: AttackSettings = AttackSettings()


Settings = TypeVar("Settings", bound=ArmSettings)
Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """What is to be learnt, the same for every arm of a cell's data set."""

    threat: Threat
    classes: int
    pretrained: Mapping[str, nn.Module] = field(default_factory=dict)  # what the arm's `builds_on` names, on the device


class Method(Generic[Settings]):
    """Base of all methods. `settings_class` is what `arms.<name>` of params.yaml may say.

    The trainer calls `loss` with the model in training mode, inside the autocast of the compute settings.
    """

    settings_class: ClassVar[type[ArmSettings]] = ArmSettings
    dense: ClassVar[bool] = False  # whether it also trains networks for segmentation and detection
    selection: ClassVar[str] = "validation_robust"  # the history column that chooses `best`
    divides: ClassVar[bool] = (
        False  # whether shards of a batch give what the batch gives (turncoat/training/parallel.py)
    )

    def __init__(self, settings: Settings, task: Task) -> None:
        self.settings = settings
        self.task = task
        self.model: nn.Module

    @property
    def attack_steps(self) -> int:
        """Steps of the attack within a training step: what its cost hangs on."""
        attack: AttackSettings | None = getattr(self.settings, "attack", None)
        return attack.steps if attack else 0

    def check(self, network: nn.Module) -> None:
        """Refuse a network that the method cannot work on; asked before anything is trained.

        Raises:
            ValueError: what the network lacks.
        """

    def prepare(self, network: nn.Module, train: DeviceSplit, seed: int) -> DeviceSplit:
        """Take the network to start from; a method that trains something else builds it here, as `self.model`.

        Args:
            network: the baseline, or a fresh network (`start: scratch`), on the device.
            train: the training split. seed: of whatever is drawn here.

        Returns: the split to train on: all of it, a part, or the same images with other labels.
        """
        self.model = network
        return train

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        """Scalar loss, and detached scalars to log (`train_accuracy` among them)."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def before_step(self) -> None:
        """Called between the backward pass and the optimiser step; what `loss` did to the weights is undone here."""

    def deploy(self, model: nn.Module) -> nn.Module:
        """The module to evaluate, out of `self.model` or its weight average; it carries a `.spec`."""
        return model


def attack(
    model: nn.Module,
    batch: Batch,
    threat: Threat,
    settings: AttackSettings,
    loss: str | Loss = "ce",
) -> Tensor:
    """The attack of a training step, in units of the data set's epsilon; radius 0 leaves the images as they are.

    Against a network that has a loss of its own it ascends that one, whatever `loss` says.
    """
    if settings.radius == 0:
        return batch.images
    if hasattr(model, "losses"):
        return ascent(
            model,
            batch.images,
            batch.labels,
            Threat(threat.norm, threat.epsilon * settings.radius),
            steps=settings.steps,
            relative_step=settings.relative_step / settings.radius,
            start=settings.start,
            generator=batch.generator,
            mode=settings.mode,
        )
    return pgd(
        model,
        batch.images,
        batch.labels,
        Threat(threat.norm, threat.epsilon * settings.radius),
        steps=settings.steps,
        relative_step=settings.relative_step / settings.radius,
        start=settings.start,
        loss=loss,
        generator=batch.generator,
        mode=settings.mode,
    )


def losses(model: nn.Module, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of each image, (n,): the network's own where it has one, as for segmentation and detection."""
    if own := getattr(model, "losses", None):
        found: Tensor = own(outputs, targets)
        return found
    return functional.cross_entropy(outputs, targets, reduction="none")


def scores(model: nn.Module, outputs: Tensor, targets: Tensor) -> Parts:
    """What is logged of the answers to clean images: `train_accuracy`, or what the network itself has to say."""
    own = getattr(model, "scores", None)
    return own(outputs, targets) if own else {"train_accuracy": accuracy(outputs, targets)}


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of right answers, a detached scalar."""
    return (logits.detach().argmax(1) == labels).float().mean()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in float32."""
    return functional.cross_entropy(logits.float(), labels)


__all__ = [
    "AdversarialSettings",
    "Batch",
    "DeviceSplit",
    "Method",
    "Parts",
    "Task",
    "accuracy",
    "attack",
    "cross_entropy",
    "losses",
    "scores",
]
