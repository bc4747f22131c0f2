"""What training looks at to choose `best`: clean and PGD-10 accuracy on the validation split, never the test split."""

from collections.abc import Callable

import torch
from torch import nn

from turncoat.attacks import Threat, pgd
from turncoat.attacks.engine import reseeded
from turncoat.data.batches import DeviceSplit
from turncoat.randomness import generator, seed_of


def validator(
    split: DeviceSplit, threat: Threat, seed: int, steps: int = 10, batch_size: int = 1000
) -> Callable[[nn.Module], dict[str, float]]:
    """A function from a deployed module to `validation_clean` and `validation_robust`, shares in [0, 1].

    The start of the attack, and what a random network draws, is the same at each call, so that epochs are compared on
    equal terms.
    """

    def validate(model: nn.Module) -> dict[str, float]:
        was_training = model.training
        model.eval()
        clean = robust = 0
        for start in range(0, len(split), batch_size):
            images = split.floats(start, start + batch_size)
            labels = split.labels[start : start + batch_size]
            with reseeded(seed_of(seed, "validate", start)), torch.no_grad():
                right = model(images).argmax(1) == labels
            images, labels = images[right], labels[right]
            clean += len(labels)
            if len(labels):
                source = generator(seed, "validate", start, device=images.device)
                adversarial = pgd(model, images, labels, threat, steps=steps, generator=source, early_stop=True)
                with reseeded(seed_of(seed, "validate", start)), torch.no_grad():
                    robust += int((model(adversarial).argmax(1) == labels).sum())
        model.train(was_training)
        return {"validation_clean": clean / len(split), "validation_robust": robust / len(split)}

    return validate
