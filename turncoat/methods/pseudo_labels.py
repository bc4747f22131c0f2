"""Training sets with labels hidden: pseudo-labels from a clean model that has never seen them.

The semi-supervised extension of Wang et al., ICLR 2020 (section 3.4, after Alayrac et al., NeurIPS 2019, "UAT++", and
Carmon et al., NeurIPS 2019, "RST"): a network trained on the labelled images labels the others, and the arm minimises

    Σ_labelled loss(x, y) + gamma · Σ_unlabelled loss(x, ŷ)

The baseline of the study has seen every label. So where labels are hidden, the arm never starts from it, but from the
pseudo-label network, or with `start: scratch` from a random initialisation.

`wrong` is the paper's question what wrong pseudo-labels cost: in place of guesses the hidden labels themselves, a set
share of them replaced. The one setting that looks at what is hidden; which classes take their place is a reading.
"""

from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from turncoat.data.batches import DeviceSplit
from turncoat.errors import TurncoatError
from turncoat.files import sha256
from turncoat.methods.base import Task
from turncoat.methods.reference import train_reference
from turncoat.randomness import generator
from turncoat.settings import Strict, TrainingSettings


class ImageFile(Strict):
    """Unlabelled images of one's own: (n, c, h, w) uint8 in a .npy file. Its checksum makes it part of the settings."""

    file: str
    sha256: str


class SemiSettings(Strict):
    """Which labels the arm may see, and what it does with the images whose labels it may not."""

    labelled: float = Field(1.0, gt=0, le=1, description="share of the training labels that are seen")
    unlabelled: ImageFile | None = Field(None, description="further images, which have no labels")
    gamma: float = Field(1.0, ge=0, description="weight of an unlabelled image; 0 leaves them out")
    wrong: float | None = Field(
        None, ge=0, lt=1, description="share of the hidden labels to be wrong, the others right; None: the labeller's"
    )
    labeller: TrainingSettings = Field(
        TrainingSettings(epochs=40, batch_size=50, lr=0.1), description="schedule of the pseudo-label network"
    )

    @model_validator(mode="after")
    def _something_to_label(self) -> Self:
        if self.labelled == 1 and self.unlabelled is None:
            raise ValueError("nothing to label: set labelled below 1, or give unlabelled images")
        if self.wrong is not None and self.unlabelled is not None:
            raise ValueError("wrong goes with hidden labels only: nobody knows those of further images")
        return self


def pseudo_labelled(
    settings: SemiSettings, network: nn.Module, train: DeviceSplit, task: Task, seed: int, start: str | None
) -> tuple[DeviceSplit, Tensor]:
    """Train the pseudo-label network on the labelled part, label the rest with it, start `network` from it.

    Returns: the split to train on, labelled images first, and the weight of each of its images, (n,) float32.

    Raises:
        TurncoatError: too few labelled images, or an image file that is missing, changed or of another shape.
    """
    seen = labelled_part(train.labels, settings.labelled, seed)
    if len(seen) < 2:
        raise TurncoatError(
            f"semi.labelled: {settings.labelled} of {len(train)} images leaves {len(seen)}; give 2 or more"
        )
    known = DeviceSplit(train.images[seen], train.labels[seen])
    labeller = train_reference(network, known, settings.labeller, task, seed)
    if start != "scratch":
        network.load_state_dict(labeller.state_dict())
    ones = torch.ones(len(known), device=train.images.device)
    if settings.gamma == 0:
        return known, ones
    hidden = torch.ones(len(train), dtype=torch.bool, device=seen.device)
    hidden[seen] = False
    images = train.images[hidden]
    if settings.unlabelled:
        images = torch.cat([images, _read(settings.unlabelled, train.images)])
    if settings.wrong is None:
        guessed = DeviceSplit(images, predictions(labeller, images))
    else:
        guessed = DeviceSplit(images, mislabelled(train.labels[hidden], settings.wrong, task.classes, seed))
    split = DeviceSplit(torch.cat([known.images, guessed.images]), torch.cat([known.labels, guessed.labels]))
    return split, torch.cat([ones, ones.new_full((len(guessed),), settings.gamma)])


def labelled_part(labels: Tensor, share: float, seed: int) -> Tensor:
    """Places of a random `share` of the labels (n,), every class in proportion, the same for the same seed."""
    order = torch.randperm(len(labels), generator=generator(seed, "labelled")).to(labels.device)
    members = functional.one_hot(labels[order])
    rank = ((members.cumsum(0) - 0.5) * members).sum(1)  # an example's place among those of its class
    evenly = (rank / members.sum(0)[labels[order]]).argsort(stable=True)
    return order[evenly[: round(share * len(labels))]]


def mislabelled(labels: Tensor, share: float, classes: int, seed: int) -> Tensor:
    """`labels` (n,) with exactly `share` of them, to the nearest image, replaced by another class, each as likely."""
    source = generator(seed, "mislabelled")
    chosen = torch.randperm(len(labels), generator=source)[: round(share * len(labels))].to(labels.device)
    shift = torch.randint(1, classes, (len(chosen),), generator=source).to(labels.device)
    return labels.index_copy(0, chosen, (labels[chosen] + shift) % classes)


@torch.no_grad()
def predictions(network: nn.Module, images: Tensor, batch_size: int = 1000) -> Tensor:
    """Predicted classes (n,) int64 of uint8 images, in eval mode."""
    split = DeviceSplit(images, torch.empty(len(images)))
    network.eval()
    starts = range(0, len(images), batch_size)
    return torch.cat([network(split.floats(start, start + batch_size)).argmax(1) for start in starts])


def _read(source: ImageFile, like: Tensor) -> Tensor:
    if not Path(source.file).is_file():
        raise TurncoatError(f"semi.unlabelled.file: {source.file}: there is no such file")
    checksum = sha256(source.file)
    if checksum != source.sha256:
        raise TurncoatError(f"semi.unlabelled.sha256: {source.file} has {checksum}; enter that if you trust it")
    try:
        images = np.load(source.file, allow_pickle=False)
    except ValueError as error:
        raise TurncoatError(f"semi.unlabelled.file: {source.file}: not a .npy array ({error})") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != tuple(like.shape[1:]):
        raise TurncoatError(
            f"semi.unlabelled.file: {source.file}: uint8 (n, {', '.join(map(str, like.shape[1:]))}) wanted, "
            f"got {images.dtype} {images.shape}"
        )
    return torch.from_numpy(images).to(like.device)
