"""MART: Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified Examples", ICLR 2020.

    loss = BCE(x', y) + beta · mean_i KL(p_i || q_i) · (1 − p_i,y)                 p = softmax f(x), q = softmax f(x')
    BCE  = −log q_y − log(1.0001 − max_{k≠y} q_k)

x' is PGD on cross-entropy with the network in eval mode, from x + 0.001·N(0, 1). As in the authors' code nothing of
the clean branch is detached: the gradient flows through the KL's target and through the weight. All of it is computed
in float32: 1.0001 − q rounds away in half precision. Batch norm meets clean images first, adversarial ones second, in
the order of that code too: the running statistics hang on it.

Settings take the components away one by one: `boosted: false` leaves plain cross-entropy, `weighted: false` an
unweighted KL, `beta: 0` no KL at all (with plain cross-entropy that is PGD training). `detach: true` is a reading that
others have tried: the clean branch as a constant.
"""

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from turncoat.methods.adversarial import AdversarialTraining, RobustSettings, divergence
from turncoat.methods.base import Batch, Parts, accuracy
from turncoat.settings import AttackSettings


class MartSettings(RobustSettings):
    """The paper's `lambda` is `beta` here, as in its code: 5 for ResNet-18, 6 for WideResNet."""

    beta: float = Field(5.0, ge=0)
    boosted: bool = Field(True, description="push the runner-up class down too, not only the label up")
    weighted: bool = Field(True, description="weigh the KL by 1 - p_y: look at misclassified examples")
    detach: bool = Field(False, description="the clean branch as a constant of the regulariser")
    attack: AttackSettings = AttackSettings(start="gaussian")


class Mart(AdversarialTraining[MartSettings]):
    """Misclassification-aware adversarial training."""

    settings_class = MartSettings
    divides = True

    def objective(self, batch: Batch, adversarial: Tensor) -> tuple[Tensor, Parts]:
        clean = self.model(batch.images) if self.settings.beta else None  # first: see the module's text
        attacked = self.model(adversarial)
        supervised = boosted_cross_entropy(attacked, batch.labels, self.settings.boosted)
        parts = {"train_accuracy": accuracy(attacked, batch.labels), "bce": supervised.detach().mean()}
        if clean is None:
            return supervised, parts
        regulariser = misclassification_kl(
            clean.detach() if self.settings.detach else clean, attacked, batch.labels, self.settings.weighted
        )
        parts["kl"] = regulariser.detach().mean()
        return supervised + self.settings.beta * regulariser, parts


def boosted_cross_entropy(logits: Tensor, labels: Tensor, boosted: bool = True) -> Tensor:
    """Per-example −log q_y − log(1.0001 − max_{k≠y} q_k); without `boosted` the first term alone. (n,) float32."""
    log_q = logits.float().log_softmax(1)
    nll = functional.nll_loss(log_q, labels, reduction="none")
    if not boosted:
        return nll
    wrong = log_q.exp().scatter(1, labels[:, None], 0.0).amax(1)
    return nll - (1.0001 - wrong).log()


def misclassification_kl(clean: Tensor, attacked: Tensor, labels: Tensor, weighted: bool = True) -> Tensor:
    """Per-example KL(p || q), times 1 − p_y where `weighted`. (n,) float32."""
    kl = divergence(clean, attacked)
    if not weighted:
        return kl
    return kl * (1 - clean.float().softmax(1).gather(1, labels[:, None])[:, 0])
