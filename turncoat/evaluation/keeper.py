"""The images that brought a network down, kept while it is attacked: of each one the worst, whatever attack made it."""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from turncoat.attacks import Threat
from turncoat.evaluation.results import AdversarialImages, Evaluation
from turncoat.files import write_atomic

CURVE = "curve "  # begins the names of attacks with other radii than the threat's


class Keeper:
    """Holds one adversarial image for each image that fell, as float32 on the CPU.

    Args:
        folder: where each batch is written besides, so that a killed evaluation finds the images of the batches that
            its journal has finished; None: nothing is written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.threat: Threat | None = None  # that the network is judged by: what others made is not kept
        self._best: dict[int, tuple[float, str, NDArray[np.float32]]] = {}
        for file in sorted(folder.glob("*.npz")) if folder else []:
            with np.load(file, allow_pickle=False) as kept:
                self._take(str(kept["attack"]), kept["place"], kept["margin"], kept["images"])

    def offer(
        self, key: str, attack: str, place: NDArray[np.int64], images: Tensor, logits: Tensor, labels: Tensor
    ) -> None:
        """Look at what an attack made of the images at `place`, (n, c, h, w), by the logits of its verdict.

        Args:
            key: of the batch, the same in a run that goes on.
        """
        if attack.startswith(CURVE):
            return
        fell = (logits.argmax(1) != labels).cpu().numpy()
        logits = logits.nan_to_num()
        own = functional.one_hot(labels, logits.shape[1]).bool()
        margin = (logits.masked_fill(own, -torch.inf).amax(1) - logits[own]).cpu().numpy()
        given = place[fell], margin[fell], images.detach()[torch.from_numpy(fell).to(images.device)].cpu().numpy()
        if self.folder is not None and fell.any():
            buffer = io.BytesIO()
            np.savez(buffer, attack=np.array(attack), place=given[0], margin=given[1], images=given[2])
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz", buffer.getvalue())
        self._take(attack, *given)

    def _take(
        self, attack: str, place: NDArray[np.int64], margin: NDArray[np.float32], images: NDArray[np.float32]
    ) -> None:
        for number, gap, image in zip(place.tolist(), margin.tolist(), images, strict=True):
            # by name where margins are equal: batches come back from the disk in another order
            if number not in self._best or (gap, attack) > self._best[number][:2]:
                self._best[number] = (gap, attack, image.copy())

    def found(self, result: Evaluation, shape: tuple[int, ...]) -> AdversarialImages:
        """Those of the images that were right and did not stand in the worst case; `shape`: (c, h, w)."""
        fell = [int(place) for place in np.flatnonzero(result.clean & ~result.worst) if int(place) in self._best]
        index = np.array(fell, np.int64)
        images = np.array([self._best[place][2] for place in fell], np.float32).reshape(-1, *shape)
        return AdversarialImages(
            index, result.label[index], images, np.array([self._best[place][1] for place in fell], str)
        )


def save_adversarial(path: Path, found: AdversarialImages) -> None:
    """Write `index`, `label`, `attack` and `images` to a .npz that numpy reads without pickles."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, index=found.index, label=found.label, attack=found.attack, images=found.images)
    write_atomic(path, buffer.getvalue())
