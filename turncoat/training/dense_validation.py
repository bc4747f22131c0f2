"""What training looks at to choose `best` in segmentation and detection: mIoU or AP, clean and under PGD-10."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from turncoat.attacks import Threat, ascent
from turncoat.data.batches import DeviceSplit
from turncoat.randomness import generator
from turncoat.training.agreement import PRIMARY, counted, measures


def dense_validator(
    split: DeviceSplit, threat: Threat, seed: int, classes: int, steps: int = 10, batch_size: int = 50
) -> Callable[[nn.Module], dict[str, float]]:
    """A function from a deployed network to `validation_clean` and `validation_robust`, the measure in [0, 1].

    The start of the attack is the same at each call, so that epochs are compared on equal terms.
    """

    def validate(model: nn.Module) -> dict[str, float]:
        network: Any = model
        was_training = model.training
        model.eval()
        clean, robust = [], []
        for start in range(0, len(split), batch_size):
            images = split.floats(start, start + batch_size)
            targets = split.labels[start : start + batch_size]
            source = generator(seed, "validate", start, device=images.device)
            adversarial = ascent(model, images, targets, threat, steps=steps, generator=source)
            with torch.no_grad():
                clean.append(network.found(model(images)))
                robust.append(network.found(model(adversarial)))
        model.train(was_training)
        counts = {
            way: counted(split.task, found, split.labels, classes)
            for way, found in (("clean", clean), ("robust", robust))
        }
        return {f"validation_{way}": measures(one)[PRIMARY[split.task]] for way, one in counts.items()}

    return validate
