"""A network under attack: batch by batch, each verdict by a fresh float32 forward pass, each finished batch kept."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from turncoat.attacks import Threat
from turncoat.attacks.engine import reseeded
from turncoat.attacks.folded import folded
from turncoat.attacks.threat import check_inside
from turncoat.errors import TurncoatError
from turncoat.evaluation.journal import Journal, packed, unpacked
from turncoat.evaluation.results import Bools, Evaluation
from turncoat.evaluation.suite import Attack, Planned, call
from turncoat.randomness import generator, seed_of


class Runner:
    """One network, one set of images, one seed.

    Every random number is drawn from a counted generator, so a batch gives the same result whatever ran before it, in
    this process or in one that was killed.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int,
        batch_size: int,
        journal: Journal,
        scope: str = "",
        stored: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model, self.images, self.labels, self.seed = model, images, labels, seed
        # Attacks meet a faster twin where there is one; verdicts are the network's own. BPDA needs a purifier's parts.
        self.target = model if hasattr(model, "purify") else folded(model, images[:8])
        self.batch_size, self.journal, self.scope, self.stored = batch_size, journal, scope, stored or {}
        self.passes = {"forward": 0, "backward": 0}  # since they were last taken
        self.random = False
        self.clean_logits = torch.cat(
            [self.logits(batch, number) for number, batch in enumerate(images.split(batch_size))]
        )

    @torch.no_grad()
    def logits(self, images: Tensor, number: int = 0) -> Tensor:
        """A fresh pass over a batch. Its random draws hang on the batch's number only: the same under every attack."""
        self.passes["forward"] += len(images)
        with reseeded(seed_of(self.seed, "score", number)):
            logits: Tensor = self.model(images)
        return logits.float()

    def take_passes(self) -> dict[str, float]:
        """Forward and backward passes an image since the last call."""
        taken = {way: round(count / len(self.labels), 3) for way, count in self.passes.items()}
        self.passes = dict.fromkeys(self.passes, 0)
        return taken

    def apply(
        self, result: Evaluation, name: str, planned: Planned, threat: Threat, among: Bools, position: str = ""
    ) -> None:
        """Run one attack on `among` and enter what it did into `result`."""
        mine = planned.threat or threat
        self.take_passes()
        result.correct[name], fell = self.attack(name, planned, mine, among, f"{position} {name}".strip())
        result.kinds[name] = planned.kind
        result.passes[name] = self.take_passes()
        if fell:
            result.parts[name] = fell
        if planned.spatial:
            result.threats[name] = None
        elif planned.threat:
            result.threats[name] = {"norm": mine.norm, "epsilon": mine.epsilon}

    def counted(self, key: str, work: Callable[[], int]) -> int:
        """A number out of the journal, or by `work`; its passes are booked either way."""

        def piece() -> dict[str, int]:
            before, self.passes = self.passes, dict.fromkeys(self.passes, 0)
            found = {"value": work(), **self.passes}
            self.passes = before
            return found

        kept = self.journal.once(f"{self.scope} {key}", piece)
        for way in self.passes:
            self.passes[way] += kept[way]
        value: int = kept["value"]
        return value

    def attack(
        self, name: str, planned: Planned, threat: Threat, among: Bools, label: str = ""
    ) -> tuple[Bools, dict[str, Bools]]:
        """Who of `among` stays right under an attack; and who fell to which of its parts, where it has several."""
        standing, fell = among.copy(), {}
        parts = {"": None} if planned.function is None else planned.parts(threat)
        for part, attack in parts.items():
            before = standing
            key = f"{name}/{part}" if part else name
            standing = self._part(key, planned, attack, threat, before, label or name)
            fell[part] = before & ~standing
        return standing, fell if len(fell) > 1 else {}

    def _part(
        self, name: str, planned: Planned, attack: Attack | None, threat: Threat, among: Bools, label: str
    ) -> Bools:
        right = among.copy()
        places = np.flatnonzero(among)
        total = len(places)
        with tqdm(total=total, desc=label, unit="image", leave=False, disable=not sys.stderr.isatty()) as bar:
            for number, start in enumerate(range(0, total, self.batch_size)):
                place = places[start : start + self.batch_size]

                def look(items: int, standing: int, start: int = start, size: int = len(place)) -> None:
                    robust = (right.sum() - size + standing) / len(right)
                    bar.set_postfix_str(f"{items} left in this batch, robust so far {robust:.1%}")

                piece = self.journal.once(
                    f"{self.scope} {name} {number}",
                    lambda place=place, number=number: self._batch(  # type: ignore[misc]
                        name, planned, attack, threat, place, number, look
                    ),
                )
                right[place] = unpacked(piece["right"], len(place))
                for way in self.passes:
                    self.passes[way] += piece[way]
                bar.set_postfix_str(f"robust so far {right.mean():.1%}")
                bar.update(len(place))
        return right

    def _batch(
        self,
        name: str,
        planned: Planned,
        attack: Attack | None,
        threat: Threat,
        place: np.ndarray[Any, Any],
        number: int,
        progress: Any,
    ) -> dict[str, Any]:
        """Attack one batch and score what came of it: a piece of the journal."""
        index = torch.from_numpy(place).to(self.images.device)
        images, labels = self.images[index], self.labels[index]
        before, self.passes = self.passes, dict.fromkeys(self.passes, 0)
        try:
            if attack is None:
                adversarial = self._stored(name, planned)[index.cpu()].to(images.device)
            else:
                network, counter = planned.seen(self.target, self.seed)
                few = max(1, self.batch_size // max(1, planned.draws))  # EOT multiplies what is held in memory
                adversarial = torch.cat(
                    [
                        call(
                            attack,
                            network,
                            images[rows],
                            labels[rows],
                            threat,
                            generator=generator(self.seed, name, number, part, device=images.device),
                            progress=progress,
                            # where the network is random an image would leave at its first unlucky draw
                            early_stop=not self.random,
                            clean_logits=None if self.random else self.clean_logits[index[rows]],
                        )
                        for part, rows in enumerate(torch.arange(len(index), device=index.device).split(few))
                    ]
                )
                self.passes = {"forward": counter.forwards, "backward": counter.backwards}
            check_inside(adversarial, images, None if planned.spatial else threat, name)
            right = self.logits(adversarial, number).argmax(1) == labels
            return {"right": packed(right.cpu().numpy()), **self.passes}
        finally:
            self.passes = before

    def _stored(self, name: str, planned: Planned) -> Tensor:
        assert planned.stored is not None
        if len(self.stored.get(planned.stored, ())) < len(self.images):
            have = ", ".join(self.stored) or "none"
            raise TurncoatError(
                f"attack {name}: no {len(self.images)} stored images {planned.stored!r} of this data set; "
                f"there are {have}; name them under `perturbations` in params.yaml"
            )
        return self.stored[planned.stored]
