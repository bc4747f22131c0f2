"""A study of a few images and arms for the papers' analyses."""

import torch

from tests.methods.small import CLASSES, TASK, network, split_of
from turncoat.attacks import fgsm
from turncoat.methods.universal import reached
from turncoat.papers.material import Arm, Material


def material(**arms):
    """A tiny study: arm name -> (its settings, its network)."""
    baseline = network().eval()
    test, train = split_of(24), split_of(16, seed=1)
    attacked = fgsm(baseline, test.floats(), test.labels, TASK.threat)
    rows = [reached(baseline, test, torch.full((1, 8, 8), 0.1), target, CLASSES) for target in range(CLASSES)]
    how = {"form": "sgd", "passes": 1, "batch_size": 8, "images": 12, "targets": rows}
    return Material(
        arms={name.replace("_", "-"): Arm(plan, lambda net=net: net) for name, (plan, net) in arms.items()},
        baseline=baseline,
        train=train,
        test=test,
        classes=CLASSES,
        threat=TASK.threat,
        seed=0,
        attacked=attacked,
        made={"sgd": how, "weak": how | {"targets": [row | {"reached": -1} for row in rows]}},
        universal={name: torch.full((CLASSES, 1, 8, 8), 0.1) for name in ("sgd", "weak")},
    )
