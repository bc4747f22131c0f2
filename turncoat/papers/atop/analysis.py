"""What AToP's figures show: images on their way through each purified network, and how strong an attack must be.

Lin et al. 2024 (arXiv 2401.16352).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from turncoat.attacks import eot, pgd
from turncoat.evaluation.results import DRAWS
from turncoat.models.purifier import Pipeline
from turncoat.papers.atop.purified import STEP, by_steps, on_the_way
from turncoat.papers.material import Findings, Material

ON_STEPS = 100  # images whose fall is followed step by step
LOOKS = (0, 1, 2, 4, 8, 16, 32)  # steps after which it is looked at, and twice as many each, while it falls
MOST_STEPS = 128
EOT = (1, 5, 20)  # draws over which the attack's loss is averaged
SHOWN = 6  # images on their way through a purifier


def analyse(material: Material) -> Findings:
    """Images on their way through each purified network, and its accuracy by draws and steps of the attack.

    Arrays: `images` (shown, c, h, w) and `labels`; of an arm `attacked`, `transformed`, `purified` (shown, c, h, w) and
    `answers` (2, shown), to the image and to the attacked one; `right` (draws, steps, n), of `scored` draws of an image
    how many are right, -1 after steps that an attack no longer took.
    """
    split, seed = material.few, material.seed
    images, labels = split.floats(0, ON_STEPS), split.labels[:ON_STEPS]
    few, theirs = images[:SHOWN], labels[:SHOWN]
    arrays: dict[str, NDArray[Any]] = {"images": few.cpu().numpy(), "labels": theirs.cpu().numpy()}
    told = {}
    for name, arm in material.of("purifier", "atop").items():
        network = arm.load()
        assert isinstance(network, Pipeline)
        draws = (1,) if network.transform.spec["name"] == "none" else EOT
        counts = [
            by_steps(network, images, labels, material.threat, draws=count, looks=LOOKS, seed=seed, most=MOST_STEPS)
            for count in draws
        ]
        reached = max(len(looked) for looked in counts)
        counts = [np.pad(c, ((0, reached - len(c)), (0, 0)), constant_values=-1) for c in counts]
        averaged = eot(network, draws[-1])
        attacked = pgd(averaged, few, theirs, material.threat, steps=20, generator=material.source("shown"))
        plain, way = on_the_way(network, few, seed), on_the_way(network, attacked, seed)
        answers = torch.stack([plain["answers"], way["answers"]])
        mine = {
            "attacked": attacked,
            "transformed": way["transformed"],
            "purified": way["purified"],
            "answers": answers,
        }
        arrays |= {f"{key}-{name}": value.cpu().numpy() for key, value in mine.items()}
        arrays[f"right-{name}"] = np.stack(counts)
        steps = [*LOOKS, *(LOOKS[-1] << more for more in range(1, reached - len(LOOKS) + 1))]
        told[name] = {"draws": list(draws), "steps": steps}
    return {"n": len(labels), "scored": DRAWS, "step": STEP, "arms": told}, arrays
