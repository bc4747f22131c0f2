"""Purified networks looked into, for AToP's figures: images on their way through, and how strong an attack must be.

Lin et al., ICLR 2024 (arXiv 2401.16352). A random network is scored by `DRAWS` draws an image, which hang on the image
and are the same under every attack.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turncoat.attacks import Threat, attacked, eot, input_gradient
from turncoat.attacks.losses import objective
from turncoat.attacks.pgd import ascend, begin
from turncoat.evaluation.results import DRAWS
from turncoat.models.purifier import Pipeline
from turncoat.randomness import generator, seed_of

STEP = 0.1  # of the attack whose steps are counted, in units of epsilon
REST = 1.0  # points that the last doubling of the steps may take off of an attack that has come to rest


def by_steps(
    network: Pipeline,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    draws: int,
    looks: Sequence[int],
    seed: int,
    most: int = 0,
) -> NDArray[np.int16]:
    """One run of full-gradient PGD + EOT through the whole network, looked at on its way.

    Args:
        images, labels: (n, c, h, w) in [0, 1]; (n,). draws: passes over which the loss is averaged.
        looks: numbers of steps, rising, after which the images are scored; 0 is the random start.
        most: beyond the last of these the steps go on doubling, up to so many, while that takes off over `REST` points.

    Returns: (looks, n), of `DRAWS` draws how many are right; a row more for each further doubling.
    """
    averaged, maximised = eot(network, draws), objective("ce")
    looks = list(looks)
    source = generator(seed, "by steps", draws, device=images.device)
    project, found = threat.projection(images), []
    with attacked(averaged, generator=source), torch.no_grad():
        adversarial = project(begin(images, threat, "uniform", source))
        for done in range(max(looks[-1], most) + 1):
            if done in looks:
                found.append(right_draws(network, adversarial, labels, seed))
            if done == looks[-1]:
                if 2 * done > most or len(found) < 2 or taken_off(*found[-2:]) <= REST:
                    break
                looks.append(2 * done)
            gradient, _, _ = input_gradient(averaged, adversarial, maximised, labels, None, None)
            adversarial = project(ascend(adversarial, gradient, threat, STEP * threat.epsilon))
    return np.stack(found)


def taken_off(before: NDArray[np.int16], after: NDArray[np.int16]) -> float:
    """Points of accuracy between two looks, (n,) each."""
    return 100 * float(before.mean() - after.mean()) / DRAWS


@torch.no_grad()
def right_draws(network: Pipeline, images: Tensor, labels: Tensor, seed: int) -> NDArray[np.int16]:
    """(n,): of `DRAWS` draws of each image, how many are right."""
    right = torch.zeros_like(labels)
    for draw in range(DRAWS):
        seeds = [seed_of(seed, "score", draw, place) for place in range(len(images))]
        right += network(images, seeds=seeds).argmax(1) == labels
    return right.cpu().numpy().astype(np.int16)


@torch.no_grad()
def on_the_way(network: Pipeline, images: Tensor, seed: int) -> dict[str, Tensor]:
    """In one draw of each image: the transformed image, hidden parts grey, the purified one, (n, c, h, w); the answer.

    With several masks an image (rt3) the first is shown.
    """

    def sources() -> list[torch.Generator]:
        return [generator(seed, "shown", place) for place in range(len(images))]

    noisy, masks = network.transform(images, sources())
    purified = network.purify(images, sources())
    hidden = masks[:, 0]
    answers = network(purified, purified=True).argmax(1)
    return {"transformed": noisy * (1 - hidden) + 0.5 * hidden, "purified": purified, "answers": answers}
