"""What PGD training and its kin share: an attack on the network as it is, a loss an example, two ways to go further.

`semi` hides labels or adds images without any (see pseudo_labels.py); `awp` perturbs the weights too (see
weight_perturbation.py). Both compose with each of the three, so that an arm has its comparator on equal terms.
"""

from typing import TypeVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from turncoat.data.batches import DeviceSplit
from turncoat.methods.base import AdversarialSettings, Batch, Method, Parts, Task, attack
from turncoat.methods.pseudo_labels import SemiSettings, pseudo_labelled
from turncoat.methods.weight_perturbation import WeightPerturbation


class RobustSettings(AdversarialSettings):
    """An arm that trains on adversarial images."""

    awp: float = Field(0.0, ge=0, description="weight perturbation / weights, of each layer; 0: none")
    semi: SemiSettings | None = None


S = TypeVar("S", bound=RobustSettings)


class AdversarialTraining(Method[S]):
    """A method is `objective`, and `attacked` where its attack is not PGD on cross-entropy."""

    def __init__(self, settings: S, task: Task) -> None:
        super().__init__(settings, task)
        self.trust: Tensor | None = None  # weight of each training image, where some have pseudo-labels

    def prepare(self, network: nn.Module, train: DeviceSplit, seed: int) -> DeviceSplit:
        self.model = network
        self.perturbation = WeightPerturbation(network, self.settings.awp)
        settings = self.settings
        if settings.semi:
            train, self.trust = pseudo_labelled(settings.semi, network, train, self.task, seed, settings.start)
        return train

    def attacked(self, batch: Batch) -> Tensor:
        """Adversarial images against the network as it is, (n, c, h, w)."""
        return attack(self.model, batch, self.task.threat, self.settings.attack)

    def objective(self, batch: Batch, adversarial: Tensor) -> tuple[Tensor, Parts]:
        """The loss of each example (n,), and detached scalars to log."""
        raise TypeError(f"{type(self).__name__} defines no objective")

    def loss(self, batch: Batch) -> tuple[Tensor, Parts]:
        adversarial = self.attacked(batch)
        if self.settings.awp:
            self.perturbation.ascend(lambda: self._weighted(batch, adversarial)[0], len(batch.labels))
        return self._weighted(batch, adversarial)

    def _weighted(self, batch: Batch, adversarial: Tensor) -> tuple[Tensor, Parts]:
        losses, parts = self.objective(batch, adversarial)
        return (losses if self.trust is None else losses * self.trust[batch.index]).mean(), parts

    def before_step(self) -> None:
        self.perturbation.restore()


def divergence(clean: Tensor, attacked: Tensor) -> Tensor:
    """KL(softmax clean || softmax attacked) of each example, (n,) float32, from logits (n, k)."""
    log_p, log_q = clean.float().log_softmax(1), attacked.float().log_softmax(1)
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
