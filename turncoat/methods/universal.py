"""Targeted universal perturbations, one a class: made by arms from their images, and by `perturb` for the figures."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from turncoat.attacks import Threat, attacked, perturb, universal_deepfool, universal_sgd
from turncoat.data.batches import DeviceSplit
from turncoat.randomness import generator
from turncoat.settings import Strict


class UniversalSettings(Strict):
    """How universal perturbations are made.

    `deepfool` accumulates minimal steps, the paper's form; `sgd` takes sign steps along mean gradients, which reaches
    higher success. The batch is the number of images that one step is for: 1 is the paper's with `deepfool`.
    """

    form: Literal["deepfool", "sgd"] = "sgd"
    passes: int = Field(10, gt=0, description="over the images, at most")
    batch_size: int = Field(32, gt=0)


class StoredSettings(UniversalSettings):
    """Universal perturbations made against a baseline by `perturb`."""

    images: int | None = Field(1000, gt=0, description="training images that they are made from; None: all")


def class_perturbations(
    network: nn.Module,
    images: DeviceSplit,
    threat: Threat,
    targets: Sequence[int],
    settings: UniversalSettings,
    seed: int,
) -> Tensor:
    """A perturbation towards each of `targets`, the same for all images: (t, c, h, w), within the ball of `threat`."""
    make: Any = universal_sgd if settings.form == "sgd" else universal_deepfool
    pixels, device = images.floats(), images.labels.device
    return torch.stack(
        [
            make(
                network,
                pixels,
                images.labels,
                threat,
                target=target,
                passes=settings.passes,
                batch_size=settings.batch_size,
                generator=generator(seed, "universal", settings.form, target, device=device),
            )
            for target in targets
        ]
    )


def reached(network: nn.Module, images: DeviceSplit, change: Tensor, target: int, classes: int) -> dict[str, Any]:
    """Where a perturbation (c, h, w) towards `target` succeeds: images of the other classes that it sends there.

    Returns: `{"target", "reached", "n", "from"}`; `from` has the images reached of each true class, 0 for the target's.
    """
    with attacked(network), torch.no_grad():
        sent = [network(perturb(batch, change)).argmax(1) == target for batch in images.floats().split(1000)]
    others = images.labels != target
    counts = images.labels[torch.cat(sent) & others].bincount(minlength=classes)
    return {"target": target, "reached": int(counts.sum()), "n": int(others.sum()), "from": counts.tolist()}


def stratified(split: DeviceSplit, size: int | None, seed: int) -> DeviceSplit:
    """A random subset of `size` images in which the classes come as evenly as they can; None, or too many: all."""
    if size is None or size >= len(split):
        return split
    labels = split.labels.cpu()
    order = torch.randperm(len(labels), generator=generator(seed, "subset"))
    grouped = order[labels[order].argsort(stable=True)]  # by class, in random order within each
    counts = labels.bincount()
    rank = torch.cat([torch.arange(int(count)) for count in counts])  # place of an image within its class
    chosen = grouped[rank.argsort(stable=True)[:size]].to(split.labels.device)  # first of each class, second of each...
    return DeviceSplit(split.images[chosen], split.labels[chosen])
