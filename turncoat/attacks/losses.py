"""What an attack maximises: one loss an example, from logits.

An attack's loss is a function `loss(logits, labels, index) -> (n,)`. Examples leave an attack early, so `index` (n,)
says which rows of the attacked batch `logits` belong to; it is None while the batch is whole. A loss that carries
something for each image of the batch (see `kl`) picks its rows by it.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Objective = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]


def rows(values: Tensor, index: Tensor | None) -> Tensor:
    """The rows of a whole-batch tensor that `index` asks for."""
    return values if index is None else values[index]


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, (n,)."""
    return F.cross_entropy(logits.float(), labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Best wrong logit minus the labelled one (Carlini & Wagner 2017), (n,): positive exactly when misclassified."""
    logits = logits.float()
    labelled = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - labelled[:, 0]


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, arXiv 2003.01690, eq. 6), (n,): free of the logits' scale.

    Needs three classes; with two it is the plain `margin`.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
    top = logits.float().topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Target's logit minus the labelled one, (n,)."""
    logits = logits.float()
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Targeted difference of logits ratio (arXiv 2003.01690, eq. 7), (n,).

    Needs four classes; with fewer it is the plain `targeted_margin`.
    """
    if logits.shape[1] < 4:
        return targeted_margin(logits, labels, targets)
    top = logits.float().topk(4, dim=1).values
    return targeted_margin(logits, labels, targets) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def kl(clean_log_probs: Tensor) -> Loss:
    """KL(clean || adversarial), the loss of TRADES (Zhang et al. 2019): `pgd(..., loss=kl(clean.log_softmax(1)))`."""
    reference = clean_log_probs.detach().float()

    def loss(logits: Tensor, labels: Tensor, index: Tensor | None) -> Tensor:
        log_probs = logits.float().log_softmax(1)
        return F.kl_div(log_probs, rows(reference, index), reduction="none", log_target=True).sum(1)

    return loss


def objective(loss: str | Loss) -> Objective:
    """The loss of that name as a function `(logits, labels, targets, index)` to be maximised.

    Without targets it leads away from the labels, with targets (one a row) towards these. `loss` is "ce", "margin",
    "dlr", or a function as described above, which is taken as it is.
    """
    if callable(loss):
        return lambda logits, labels, targets, index: loss(logits, labels, index)
    if loss not in UNTARGETED:
        raise ValueError(f"loss: {loss!r} is unknown; choose one of {', '.join(UNTARGETED)} or pass a function")
    away = UNTARGETED[loss]

    def named(logits: Tensor, labels: Tensor, targets: Tensor | None, index: Tensor | None) -> Tensor:
        if targets is None:
            return away(logits, labels)
        if loss == "dlr":
            return targeted_dlr(logits, labels, targets)
        return -away(logits, targets)  # towards a class is against its own loss

    return named


UNTARGETED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ce": ce, "margin": margin, "dlr": dlr}
