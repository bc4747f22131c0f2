"""A network under attack: batch by batch, each verdict by a fresh float32 forward pass, each finished batch kept."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from turncoat.attacks import Threat, attacked, capacity
from turncoat.attacks.folded import folded
from turncoat.attacks.threat import check_inside
from turncoat.evaluation.journal import Journal, packed, unpacked
from turncoat.evaluation.keeper import Keeper
from turncoat.evaluation.planned import Attack, Planned, call
from turncoat.evaluation.pristine import Forgetful, Pristine, apart, drawing
from turncoat.evaluation.results import DRAWS, Bools, Evaluation, Outcome
from turncoat.randomness import generator, seed_of
from turncoat.settings import Auto
from turncoat.training import parallel

Places = NDArray[np.int64]
SPOT = 16  # images of each batch for which the attacked network is asked once more


class Runner:
    """One network, one set of images, one seed. Several processes (`turncoat.training.parallel`) share the batches.

    Every random number is drawn from a counted generator, so a batch gives the same result whatever ran before it, in
    this process or in one that was killed. A random network whose `forward` takes `seeds`, one an image, is scored by
    draws that hang on the image alone; any other by draws that hang on the first image of the batch.
    """

    def __init__(
        self,
        model: nn.Module | Pristine,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int,
        batch_size: int | Auto,
        journal: Journal,
        scope: str = "",
        stored: Mapping[str, Tensor] | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.pristine = model if isinstance(model, Pristine) else Pristine(model)
        self.images, self.labels, self.seed = images, labels, seed
        # Attacks meet a faster twin where there is one; verdicts are the network's own. BPDA needs a purifier's parts.
        self.whole = self.pristine.fresh()  # what attacks meet that work on no batch
        self.target = self.whole if hasattr(self.whole, "purify") else folded(self.whole, images[:8].clone())
        self.comparable = True  # the target gives the network's own logits
        self.spots, self.apart = 0, 0.0  # images asked of the target once more; how far it was from the verdicts
        self.journal, self.scope, self.stored = journal, scope, stored or {}
        self.keeper = keeper
        # chosen once: which numbers an attack draws hangs on it, and a run that was killed must go on with the same
        self.batch_size: int = (
            parallel.of_first(journal.once(f"{scope} batch size", lambda: capacity.batch_size(self.target, images)))
            if batch_size == "auto"
            else batch_size
        )
        self.passes = {"forward": 0, "backward": 0}  # since they were last taken
        self.random = False
        self.clean_logits = self.logits(images, np.arange(len(images)))

    def logits(self, images: Tensor, places: Places, draw: int = 0) -> Tensor:
        """Passes of fresh copies over images, one a batch: (n, classes) float32.

        Args:
            places: (n,) where in the split each image stands, or the one that it was made of.
            draw: of a random network: the one that gives verdicts, or 1 to `DRAWS`. The same under every attack.
        """
        self.passes["forward"] += len(images)
        return torch.cat(
            [
                self.ask(self.pristine.fresh(), images[rows], places[rows], draw)
                for start in range(0, len(images), self.batch_size)
                for rows in [slice(start, start + self.batch_size)]
            ]
        )

    def ask(
        self,
        network: nn.Module,
        images: Tensor,
        places: Places,
        draw: int = 0,
        seeds: bool = True,
        gradient: bool = False,
    ) -> Tensor:
        """One pass of `network` over a copy of images: (n, classes) float32; the draws are those that give verdicts.

        Args:
            seeds: hand them over, where the network takes them. gradient: take that for the images as well.
        """
        images, given = images.clone().requires_grad_(gradient), {}
        if self.pristine.seeded and seeds:
            given["seeds"] = [seed_of(self.seed, "score", draw, place) for place in places.tolist()]
        with drawing(seed_of(self.seed, "score", draw, int(places[0]))), torch.set_grad_enabled(gradient):
            logits: Tensor = network(images, **given).float()
            if gradient and logits.requires_grad:
                torch.autograd.grad(logits.sum(), images, allow_unused=True)
        return logits.detach()

    @torch.no_grad()
    def aim(self, target: nn.Module) -> None:
        """Let attacks meet `target`, another way to the network's predictions; verdicts stay the network's own."""
        self.target, self.comparable = target, False
        if not self.random:
            self.clean_logits = torch.cat([target(batch.clone()) for batch in self.images.split(self.batch_size)])
            self.passes["forward"] += len(self.images)

    def forget(self) -> None:
        """Let attacks meet a network that begins anew with each pass; one with a purifier must stay whole."""
        if not hasattr(self.whole, "purify"):
            self.target = self.whole = Forgetful(self.pristine)

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
        found, fell = self.attack(name, planned, mine, among, f"{position} {name}".strip())
        result.passes[name] = self.take_passes()
        if fell:
            result.parts[name] = fell
        result.enter(name, planned, mine, found)

    def take_spots(self) -> int:
        """Images asked of the attacked network once more, since the last call."""
        taken, self.spots = self.spots, 0
        return taken

    def noted(self, key: str, work: Callable[[], Tensor]) -> Bools:
        """What `work` says of every image, (n,) bool, or the journal; its passes are booked either way."""

        def piece() -> dict[str, Any]:
            before, self.passes = self.passes, dict.fromkeys(self.passes, 0)
            found = {"right": packed(work().cpu().numpy()), **self.passes}
            self.passes = before
            return found

        kept = self.journal.once(f"{self.scope} {key}", piece)
        for way in self.passes:
            self.passes[way] += kept[way]
        return unpacked(kept["right"], len(self.labels))

    def attack(
        self, name: str, planned: Planned, threat: Threat, among: Bools, label: str = ""
    ) -> tuple[Outcome, dict[str, Bools]]:
        """What an attack does to `among`; and who fell to which of its parts, where it has several."""
        found, fell = Outcome.of(among, self.random), {}
        parts = {"": None} if planned.function is None else planned.parts(threat)
        for part, attack in parts.items():
            before = found
            key = f"{name}/{part}" if part else name
            found = before.worse(self._part(key, planned, attack, threat, before.open, label or name))
            fell[part] = before.right & ~found.right
        return found, fell if len(fell) > 1 else {}

    def _part(
        self, name: str, planned: Planned, attack: Attack | None, threat: Threat, among: Bools, label: str
    ) -> Outcome:
        right, harm = among.copy(), np.where(among, 0.0, -1.0)
        places = np.flatnonzero(among)
        total = len(places)
        whole: dict[int, int] = {}  # items that a batch began with: its share done, and with it the time left
        own: dict[int, Any] = {}  # pieces of this process

        def enter(number: int, piece: dict[str, Any]) -> None:
            place = places[number * self.batch_size : (number + 1) * self.batch_size]
            right[place] = unpacked(piece["right"], len(place))
            harm[place] = piece.get("harm", 0)
            self.spots += min(SPOT, len(place)) if "apart" in piece else 0
            self.apart = max(self.apart, piece.get("apart", 0))
            for way in self.passes:
                self.passes[way] += piece[way]

        with tqdm(total=total, desc=label, unit="image", leave=False, disable=not sys.stderr.isatty()) as bar:
            for number, start in enumerate(range(0, total, self.batch_size)):
                place = places[start : start + self.batch_size]
                if number % parallel.size() != parallel.rank():  # a batch gives the same whoever works on it
                    continue

                def look(items: int, standing: int, start: int = start, size: int = len(place)) -> None:
                    robust = (right.sum() - size + standing) / len(right)
                    bar.update(start + size * (1 - items / whole.setdefault(start, max(1, items))) - bar.n)
                    bar.set_postfix_str(f"{items} left in this batch, robust so far {robust:.1%}")

                piece = self.journal.once(
                    f"{self.scope} {name} {number}",
                    lambda place=place, number=number: self._batch(  # type: ignore[misc]
                        name, planned, attack, threat, place, number, look
                    ),
                )
                own[number] = piece
                enter(number, piece)
                bar.set_postfix_str(f"robust so far {right.mean():.1%}")
                bar.update(start + len(place) - bar.n)
        for number, piece in parallel.gathered(own).items():
            if number not in own:
                enter(number, self.journal.once(f"{self.scope} {name} {number}", lambda piece=piece: piece))  # type: ignore[misc]
        return Outcome(right, harm if self.random else None)

    def _batch(
        self,
        name: str,
        planned: Planned,
        attack: Attack | None,
        threat: Threat,
        place: Places,
        number: int,
        progress: Any,
    ) -> dict[str, Any]:
        """Attack one batch and score what came of it: a piece of the journal."""
        index = torch.from_numpy(place).to(self.images.device)
        images, labels = self.images[index], self.labels[index]
        before, self.passes = self.passes, dict.fromkeys(self.passes, 0)
        try:
            if attack is None:
                stored = self.stored[str(planned.stored)]
                adversarial = stored[index.to(stored.device)].to(images.device)
            else:
                network, counter = planned.seen(self.target, self.seed, self.batch_size)
                few = planned.together(self.batch_size)
                blind = self.random or planned.alone
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
                            # what the attack sees fall may stand: in another draw, behind the purifier
                            early_stop=not blind,
                            clean_logits=None if blind else self.clean_logits[index[rows]],
                            **self._targets(planned, index[rows], name, number, part),
                        )
                        for part, rows in enumerate(torch.arange(len(index), device=index.device).split(few))
                    ]
                )
                self.passes = {"forward": counter.forwards, "backward": counter.backwards}
            check_inside(adversarial, images, None if planned.spatial else threat, name)
            verdict = self.logits(adversarial, place)
            right = verdict.argmax(1) == labels
            if self.keeper is not None and not planned.spatial and threat == self.keeper.threat:
                self.keeper.offer(f"{self.scope} {name} {number}", name, place, adversarial, verdict, labels)
            more: dict[str, Any] = {"harm": self._harm(adversarial, labels, place)} if self.random else {}
            if self.comparable and not self.random and not planned.alone and attack is not None:
                more["apart"] = self._spot(adversarial[:SPOT], verdict[:SPOT])
            return {"right": packed(right.cpu().numpy()), **more, **self.passes}
        finally:
            self.passes = before

    def _targets(self, planned: Planned, index: Tensor, name: str, number: int, part: int) -> dict[str, Tensor]:
        source = generator(self.seed, "targets", name, number, part, device=self.images.device)
        aims = planned.aims(self.clean_logits[index], self.labels[index], source)
        return {} if aims is None else {"targets": aims}

    def _spot(self, adversarial: Tensor, verdict: Tensor) -> float:
        """How far the attacked network, asked once more for what the attack made, is from the verdict."""
        with torch.no_grad(), attacked(self.target):
            again = self.target(adversarial.clone()).float()
        return apart(again, verdict)

    def _harm(self, images: Tensor, labels: Tensor, places: Places) -> list[float]:
        """See `Outcome`. Probabilities tell attacks apart by fewer draws than right and wrong do."""
        logits = torch.stack([self.logits(images, places, draw) for draw in range(1, 1 + DRAWS)])
        every = labels.expand(DRAWS, -1)
        harm = 1 - logits.softmax(2).gather(2, every[..., None])[..., 0].mean(0).nan_to_num(0)
        always = (logits.argmax(2) != every).all(0)
        found: list[float] = torch.where(always, 1.0, harm.clamp(0, 0.999999)).double().round(decimals=6).tolist()
        return found
