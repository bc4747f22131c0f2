"""AutoAttack on a network that others trained: ours, torchattacks' and the authors' own, on the same images.

    TURNCOAT_MIRROR=MIRROR .venv/peers/bin/python -m benchmarks.given --by turncoat [--epsilon 1/255] [--images 200]

Runs in the peers' environment (`make peers`), one library a call, with the baseline that a data set of params.yaml or
the shelves is given. An image stands that a fresh float32 pass of the network still gets right after the attack's
result was brought back into the threat. torchattacks' own AutoAttack takes 10 steps where the paper takes 100:
`torchattacks-100` makes the same four attacks of its classes with the paper's steps.
"""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.official import official
from turncoat.attacks import Threat
from turncoat.data.batches import resident
from turncoat.evaluation import evaluate
from turncoat.evaluation.brought import named_images
from turncoat.models.given import given_classifier
from turncoat.settings import load

STEPS = 100  # Croce and Hein 2020, of APGD and FAB alike


def theirs(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, steps: int | None) -> Tensor:
    """torchattacks' AutoAttack, or with `steps` the same ensemble of its attacks; images inside the threat."""
    import torchattacks

    epsilon = threat.epsilon
    if steps is None:
        attack = torchattacks.AutoAttack(model, eps=epsilon, seed=0)
    else:
        attack = torchattacks.MultiAttack(
            [
                torchattacks.APGD(model, eps=epsilon, steps=steps, seed=0),
                torchattacks.APGDT(model, eps=epsilon, steps=steps, seed=0),
                torchattacks.FAB(model, eps=epsilon, steps=steps, multi_targeted=True, seed=0),
                torchattacks.Square(model, eps=epsilon, n_queries=5000, seed=0),
            ]
        )
    return threat.project(attack(images, labels).detach(), images)


def standing(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, by: str) -> int:
    """How many of the images a library's AutoAttack leaves."""
    if by == "turncoat":
        found = evaluate(model, images, labels, threat, {"autoattack": {"attack": "autoattack"}}, checks=False)
        return int(found.worst.sum())
    made: dict[str, Callable[[], Tensor]] = {
        "torchattacks": lambda: theirs(model, images, labels, threat, None),
        "torchattacks-100": lambda: theirs(model, images, labels, threat, STEPS),
        "official": lambda: official(model, images, labels, threat, 0, "standard"),
    }
    with redirect_stdout(sys.stderr):
        attacked = made[by]()
    with torch.no_grad():
        return int((model(attacked).argmax(1) == labels).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    libraries = ["turncoat", "torchattacks", "torchattacks-100", "official"]
    parser.add_argument("--by", required=True, choices=libraries)
    parser.add_argument("--dataset", default="cifar10-given", help="with a given baseline (%(default)s)")
    parser.add_argument("--epsilon", type=Fraction, default=Fraction(1, 255), help="(%(default)s)")
    parser.add_argument("--images", type=int, default=200, help="the first so many test images (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(%(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    settings = load().datasets.get(given.dataset)
    if settings is None or settings.baseline is None:
        parser.error(f"--dataset {given.dataset}: no data set of params.yaml or the shelves with a given baseline")
    brought = named_images(given.dataset, settings.data, Path("data") / given.dataset)
    model, told = given_classifier(settings, len(brought.classes), brought.shape, brought.mean, brought.std)
    model = model.requires_grad_(False)
    split = resident(brought.test.images[: given.images], brought.test.labels[: given.images], "cpu")
    images, labels = split.floats(), split.labels
    threat = Threat(settings.threat.norm, float(given.epsilon))
    with torch.no_grad():
        clean = int((model(images).argmax(1) == labels).sum())
    began = time.process_time()
    left = standing(model, images, labels, threat, given.by)
    share = f"{100 * left / len(labels):.1f} %"
    print(
        f"{given.by}: {left} of {len(labels)} images stand ({share}), {clean} of them were right before; "
        f"{told['weights']}, {threat.norm} {given.epsilon}, {time.process_time() - began:.0f} core-seconds"
    )


if __name__ == "__main__":
    main()
