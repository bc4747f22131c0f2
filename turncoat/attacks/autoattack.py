"""AutoAttack: attacks without settings to tune, one after the other, each on what the ones before left standing.

Croce & Hein 2020, arXiv 2003.01690; for l1 Croce & Hein 2021, arXiv 2103.01208. `ensemble` spells the ensembles out.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .apgd import apgd, apgd_t
from .board import Progress
from .engine import attacked, check, fallen
from .fab import fab, fab_t
from .square import square
from .threat import Threat
from .wrappers import eot

Attack = Callable[..., Tensor]
EOT_DRAWS = 20

VERSIONS = ("standard", "plus", "rand")
TAKES_CLEAN_LOGITS = ("apgd-t", "fab-t")


def ensemble(version: str, threat: Threat, *, steps: int = 100, queries: int = 5000) -> dict[str, Attack]:
    """The attacks of a version ("standard", "plus", "rand") against this threat, by name and in order.

    For a caller that runs them itself. Those of "rand" are meant for `eot(model, 20)`.
    """
    ce, dlr = partial(apgd, steps=steps), partial(apgd, steps=steps, loss="dlr")
    targeted, boundary = partial(apgd_t, steps=steps), partial(fab_t, steps=steps)
    search = partial(square, queries=queries, rescale=False)  # as the authors' AutoAttack calls their Square
    stages: dict[str, Attack] = {}
    if version == "standard" and threat.norm != "l1":
        stages = {"apgd-ce": ce, "apgd-t": targeted, "fab-t": boundary, "square": search}
    elif version == "standard":
        ce, targeted = partial(ce, restarts=5), partial(targeted, classes=5)
        stages = {"apgd-ce": ce, "apgd-t": targeted, "fab-t": boundary, "square": search}
    elif version == "plus":
        ce, dlr, nearest = partial(ce, restarts=5), partial(dlr, restarts=5), partial(fab, steps=steps, restarts=5)
        stages = {"apgd-ce": ce, "apgd-dlr": dlr, "fab": nearest, "square": search}
        stages |= {"apgd-t": targeted, "fab-t": boundary}
    elif version == "rand":
        stages = {"apgd-ce": ce, "apgd-dlr": dlr}
    else:
        raise ValueError(f"version: {version!r} is unknown; choose one of {', '.join(VERSIONS)}")
    return stages


def autoattack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    version: str = "standard",
    steps: int = 100,
    queries: int = 5000,
    clean_logits: Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    mode: str = "eval",
    progress: Progress | None = None,
) -> Tensor:
    """AutoAttack, untargeted: a robust accuracy is that of the images it returns.

    `folded(model, images)` in place of `model`, as the evaluation does it, is faster; score with `model` itself then.

    Args:
        images, labels: (n, c, h, w) float32 in [0, 1]; (n,) int64.
        version: "standard"; "plus", with restarts and the untargeted attacks; "rand", for a random network, which is
            then attacked through the mean of 20 passes.
        steps, queries: of APGD and FAB, and of Square. Only the defaults are AutoAttack.
        clean_logits: (n, k), where known; they save a forward pass.
        generator: required. batch_size: images a forward pass, by default n.
        progress: called with (items still to be attacked, images standing) before each batch of each attack.

    Returns: (n, c, h, w) float32; an image that no attack could turn comes back as the first attack left it.
    """
    check(images, labels, steps=steps, queries=queries)
    stages = ensemble(version, threat, steps=steps, queries=queries)
    size = batch_size or len(images)
    with attacked(model, mode, generator), torch.no_grad():
        seen = eot(model, EOT_DRAWS) if version == "rand" else model
        if clean_logits is None:
            clean_logits = _exact(seen, images, size)
        adversarial = images.clone()
        standing = (~fallen(clean_logits, labels)).nonzero()[:, 0]
        for number, (name, attack) in enumerate(stages.items()):
            if not len(standing):
                break
            extra = {"clean_logits": clean_logits[standing]} if name in TAKES_CLEAN_LOGITS else {}
            found = attack(
                seen, images[standing], labels[standing], threat,
                generator=generator, batch_size=size, mode=mode, progress=progress, **extra,
            )  # fmt: skip
            down = fallen(_exact(seen, found, size), labels[standing])
            told = down if number else torch.ones_like(down)
            adversarial[standing[told]] = found[told]
            standing = standing[~down]
        return adversarial


def _exact(model: nn.Module, images: Tensor, size: int) -> Tensor:
    """Logits (n, k) that decide who stands: float32 also under a caller's autocast."""
    with torch.autocast(images.device.type, enabled=False):
        return torch.cat([model(batch) for batch in images.split(size)])
