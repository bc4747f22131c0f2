"""What lies behind benign measures of segmentation and detection: mismatched statistics, a smooth judgement surface."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turncoat.attacks import ascent
from turncoat.papers.advamd.analysis import ON_SURFACE, mismatch, plane
from turncoat.papers.material import BESIDE, DenseMaterial, Findings

IMAGES = 100  # test images, at most, whose statistics are compared
BATCH = 50
SHOWN = 8  # test images that figures show
FIRST, SURFACES = ("standard", "advamd"), 4  # whose loss is drawn before others', and how many networks' is
SIZE = 13  # points on each axis of the surface


def analyse(material: DenseMaterial) -> Findings:
    """How far mediate and adversarial images lie from benign ones, and how a network's loss is shaped.

    Each network's own, under PGD-20 on its loss; of standard training and of the paper's arms. `images` and `targets`
    of the arrays are the first of the test set, for figures.
    """
    images, targets = material.test.floats(0, IMAGES), material.test.labels[:IMAGES]
    arrays: dict[str, NDArray[Any]] = {
        "images": images[:SHOWN].cpu().numpy(),
        "targets": targets[:SHOWN].cpu().numpy(),
    }
    every = material.of(*BESIDE, "advamd")
    drawn = sorted(every, key=lambda name: name not in FIRST)[:SURFACES]
    gaps, surfaces = {}, {}
    for name, arm in every.items():
        network: Any = arm.load()
        source = material.source()
        adversarial = torch.cat(
            [
                ascent(network, some, of_some, material.threat, steps=20, generator=source)
                for some, of_some in zip(images.split(BATCH), targets.split(BATCH), strict=True)
            ]
        )
        middle = (images + adversarial) / 2
        gaps[name] = mismatch(network, {"benign": images, "mediate": middle, "adversarial": adversarial}, BATCH)
        if name not in drawn:
            continue
        here = slice(0, ON_SURFACE)
        at, loss, bend = surface(network, images[here], targets[here], adversarial[here], source)
        arrays[f"loss-{name}"] = loss
        surfaces[name] = {"n": len(images[here]), "at": at, "roughness": bend}
    return {"mismatch": gaps, "surface": surfaces}, arrays


@torch.no_grad()
def surface(
    network: Any,
    images: Tensor,
    targets: Tensor,
    adversarial: Tensor,
    source: torch.Generator,
    size: int = SIZE,
    low: float = -0.5,
    high: float = 1.5,
) -> tuple[list[float], NDArray[np.float32], float]:
    """Mean loss on the plane of the adversarial direction and a random one across it, as for classifiers.

    Returns: the points on each axis in units of the perturbation; the loss (size, size), the first index along the
        adversarial direction; the mean |second difference| of an image's loss in that direction / step².
    """
    network.eval()
    along, across = plane(images, adversarial, source)
    at = torch.linspace(low, high, size)
    losses = images.new_empty(size, size, len(images))
    for row, a in enumerate(at.tolist()):
        for column, b in enumerate(at.tolist()):
            points = (images + a * along + b * across).clamp(0, 1)
            losses[row, column] = network.losses(network(points), targets)
    bend = losses.diff(n=2, dim=0).abs().mean() / ((high - low) / (size - 1)) ** 2
    return [round(value, 6) for value in at.tolist()], losses.mean(2).cpu().numpy(), round(float(bend), 6)
