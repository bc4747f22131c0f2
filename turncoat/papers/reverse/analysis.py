"""What a calibrator does to the confidence of the classifier behind it, image by image.

Ye et al. 2019 (arXiv 1905.12171): reverse adversarial examples raise a classifier's confidence.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turncoat.attacks import SHIFTS
from turncoat.models.calibrator import Frozen
from turncoat.papers.material import Findings, Material

SEVERITY = 5  # of the shifts that calibrators meet


def analyse(material: Material) -> Findings:
    """What each calibrator does to the confidence under each shift, and to one image of each.

    Arrays of an arm: `confidence` (scenes, bins, bins), `changes` (scenes, c, h, w), `answers` (2, scenes, classes),
    the probabilities for one image of each scene before and after the calibrator.
    """
    images, labels = material.few.floats(), material.few.labels
    scenes = {"clean": images}
    scenes |= {name: shift(images, SEVERITY, material.source(name)) for name, shift in SHIFTS.items()}
    places = [place % len(images) for place in range(len(scenes))]
    shown = torch.stack([scene[place] for place, scene in zip(places, scenes.values(), strict=True)])
    arrays: dict[str, NDArray[Any]] = {"images": shown.cpu().numpy(), "labels": labels[places].cpu().numpy()}
    shares = {}
    for name, arm in material.of("reverse").items():
        pipeline = arm.load()
        assert isinstance(pipeline, Frozen)
        looked = {scene: before_and_after(pipeline, seen, labels) for scene, seen in scenes.items()}
        shares[name] = {scene: told for scene, (told, _) in looked.items()}
        with torch.no_grad():
            mended = pipeline.calibrate(shown)
            answers = torch.stack([pipeline.classifier(each).float().softmax(1) for each in (shown, mended)])
        arrays[f"confidence-{name}"] = np.stack([counts for _, counts in looked.values()])
        arrays[f"changes-{name}"] = (mended - shown).cpu().numpy()
        arrays[f"answers-{name}"] = answers.cpu().numpy()
    return {"severity": SEVERITY, "scenes": list(scenes), "arms": shares}, arrays


@torch.no_grad()
def before_and_after(
    pipeline: Frozen, images: Tensor, labels: Tensor, *, bins: int = 10, batch_size: int = 500
) -> tuple[dict[str, float], NDArray[np.int64]]:
    """What a calibrator does to the probability of the right class, image by image.

    Returns: the shares of images that are right `before` and `after` it, and whose confidence `rose` and `fell` by
        more than 0.01; and how many images lie in which bin before (rows) and after (columns), (bins, bins).
    """
    logits = [torch.cat([net(part) for part in images.split(batch_size)]) for net in (pipeline.classifier, pipeline)]
    right = [float((each.argmax(1) == labels).float().mean()) for each in logits]
    before, after = (each.float().softmax(1).gather(1, labels[:, None])[:, 0] for each in logits)
    place, moved = ((each * bins).long().clamp_max(bins - 1) for each in (before, after))
    counts = (place * bins + moved).bincount(minlength=bins * bins).view(bins, bins)
    shares = {
        "before": right[0],
        "after": right[1],
        "rose": float((after > before + 0.01).float().mean()),
        "fell": float((after < before - 0.01).float().mean()),
    }
    return {name: round(share, 6) for name, share in shares.items()}, counts.cpu().numpy()
