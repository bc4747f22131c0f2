"""Whether a network answers alike whoever asks, in which company, after what questions: probes that always run.

Attacks look for images in thousands of questions; a verdict is one question to a network that has seen nothing. Both
must meet the same function of one image. The probes compare answers to the same images by fresh copies (pristine.py),
with the same draws; where draws cannot be held fixed, by their spread. They cost a few passes over `PROBED` images.

A network that they catch is attacked as if it had no past, so that its numbers are near the truth; flags block all the
same. State outside the module (a global variable, a file) reaches every copy: it shows only as far as answers change.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from turncoat.attacks import Threat, attacked, input_gradient
from turncoat.attacks.losses import margin
from turncoat.attacks.threat import ascend, uniform
from turncoat.evaluation.pristine import apart, drawing
from turncoat.evaluation.results import Flag
from turncoat.evaluation.runner import Places, Runner
from turncoat.randomness import generator, seed_of

PROBED, ALONE = 50, 8  # images
DRAWS = 8  # of a random network whose draws cannot be held fixed
TOLERANCE = 0.02  # of the usual gap between two logits; float32 on a GPU may round to a thousandth
SURE, HALVES = 10.0, 200  # standard deviations of random halves that tell two kinds of draws apart
REACH = 0.25  # of the threat's epsilon: how far along a gradient the network is asked whether it leads anywhere
FEWEST = 5  # images with a gradient, to judge it by


class Steadiness:
    """The probes of one network: `first` before any attack, `last` after all."""

    def __init__(self, runner: Runner, threat: Threat) -> None:
        self.runner, self.threat = runner, threat
        self.images, self.places = runner.images[:PROBED], np.arange(min(PROBED, len(runner.images)))
        self.answer = self._fresh(self.images, self.places)

    def first(self) -> list[Flag]:
        """What differs by gradients or history, by company, by who asks."""
        probes = {
            "stateful": self._asked_on,
            "batch-dependent": self._in_company,
            "told-apart": self._without_seeds,
            "false-gradient": self._along_gradients,
        }
        flags = [Flag(name, said, blocks=True) for name, probe in probes.items() if (said := probe())]
        if any(flag.name == "stateful" for flag in flags):
            self.runner.forget()
        return flags

    def last(self) -> list[Flag]:
        """What has changed meanwhile, or was another network to the attacks than to the verdicts."""
        flags = []
        if (found := apart(self._fresh(self.images, self.places), self.answer)) > TOLERANCE:
            said = f"a fresh copy answers otherwise after the attacks than before ({_gap(found)})"
            flags.append(Flag("unsteady", f"{said}: it looks at a clock, or its state lies outside the module", True))
        if self.runner.apart > TOLERANCE:
            said = "for images that attacks made, the attacked network and a fresh copy answer otherwise"
            flags.append(Flag("told-apart", f"{said} ({_gap(self.runner.apart)})", blocks=True))
        return flags

    @property
    def _repeatable(self) -> bool:
        """Whether an image's draws can be the same in other company."""
        return self.runner.pristine.seeded or not self.runner.random

    def _fresh(self, images: Tensor, places: Places, draw: int = 0, seeds: bool = True) -> Tensor:
        self.runner.passes["forward"] += len(images)
        return self.runner.ask(self.runner.pristine.fresh(), images, places, draw, seeds)

    def _asked_on(self) -> str:
        """One copy is asked again and again, each question also put to a fresh one."""
        runner, images, places = self.runner, self.images, self.places
        source = generator(runner.seed, "steadiness", device=images.device)
        near = self.threat.project(images + self.threat.epsilon * (uniform(images, source) - 0.5).sign(), images)
        backwards = np.ascontiguousarray(places[::-1])
        kept = runner.pristine.fresh()
        with attacked(kept):
            runner.passes["forward"] += len(images)
            runner.passes["backward"] += len(images)
            if (found := apart(runner.ask(kept, images, places, gradient=True), self.answer)) > TOLERANCE:
                return f"answers are others where gradients are asked for ({_gap(found)})"
            for how, batch, at in (
                ("in another order", images.flip(0), backwards),
                ("for images near those seen", near, places),
                ("for images seen before", images, places),
            ):
                runner.passes["forward"] += len(batch)
                if (found := apart(runner.ask(kept, batch, at), self._fresh(batch, at))) > TOLERANCE:
                    return f"answers {how} are others than those of a fresh copy ({_gap(found)})"
        return ""

    def _in_company(self) -> str:
        """Images alone, and among others in two orders."""
        singles = [slice(place, place + 1) for place in range(min(ALONE, len(self.images)))]
        if not self._repeatable:
            many = range(1, 1 + DRAWS)
            among = torch.stack([self._fresh(self.images, self.places, draw)[: len(singles)] for draw in many])
            alone = [self._alone(singles, draw + DRAWS) for draw in many]
            return "answers to an image alone and among others differ by more than draws do" * (
                len(singles) == ALONE and unlike(among, torch.stack(alone))
            )
        found = apart(self._alone(singles, 0), self.answer[: len(singles)])
        backwards = np.ascontiguousarray(self.places[::-1])
        found = max(found, apart(self._fresh(self.images.flip(0), backwards).flip(0), self.answer))
        return f"answers hang on the other images of the batch ({_gap(found)})" * (found > TOLERANCE)

    def _alone(self, singles: list[slice], draw: int) -> Tensor:
        return torch.cat([self._fresh(self.images[one], self.places[one], draw) for one in singles])

    def _without_seeds(self) -> str:
        """Verdicts hand over seeds, attacks do not."""
        if not self.runner.pristine.seeded:
            return ""
        if not self.runner.random:
            found = apart(self._fresh(self.images, self.places, seeds=False), self.answer)
            return f"answers with `seeds` and without are others ({_gap(found)})" * (found > TOLERANCE)
        images, places = self.images[: PROBED // 2], self.places[: PROBED // 2]
        those, these = (
            torch.stack([self._fresh(images, places, draw, seeds) for draw in range(1, 1 + DRAWS)])
            for seeds in (True, False)
        )
        return "answers with `seeds` and without differ by more than draws do" * unlike(those, these)

    def _along_gradients(self) -> str:
        """A step along the gradient of the margin changes it more than one of random signs, if it is the gradient."""
        runner, images, labels = self.runner, self.images, self.runner.labels[: len(self.images)]
        draws = range(DRAWS if runner.random else 1)  # a random network's step may lead nowhere in any one draw
        gradient = torch.zeros_like(images)
        for draw in draws:
            with drawing(seed_of(runner.seed, "score", draw, int(self.places[0]))), attacked(runner.whole):
                gradient += input_gradient(runner.whole, images.clone(), margin, labels)[0]
        runner.passes["forward"] += len(images) * len(draws)
        runner.passes["backward"] += len(images) * len(draws)
        leads = (torch.isfinite(gradient) & (gradient != 0)).flatten(1).any(1)
        if int(leads.sum()) < FEWEST:  # which other checks see to
            return ""
        source = generator(runner.seed, "gradients", device=images.device)
        near = replace(self.threat, epsilon=REACH * self.threat.epsilon)

        def margins(of: Tensor) -> Tensor:
            return torch.stack([margin(self._fresh(of, self.places, draw), labels) for draw in draws]).mean(0)

        before = margins(images) if runner.random else margin(self.answer, labels)
        along, aside = (
            margins(near.project(ascend(images, direction, near, near.epsilon), images)) - before
            for direction in (gradient, uniform(images, source) - 0.5)
        )
        gained, chance = float(along[leads].median()), float(aside[leads].abs().median())
        return "a step along the gradient changes the answers no more than a random one" * (gained <= chance)


def unlike(first: Tensor, second: Tensor) -> bool:
    """Whether two sets of draws, (draws, n, classes) logits each, are of two distributions.

    By their energy distance, against those of random halves of all draws.
    """
    draws, images = first.shape[:2]
    every = torch.cat([first, second]).transpose(0, 1).double().cpu()
    distances = torch.cdist(every, every)  # (n, 2 draws, 2 draws)
    ours = torch.cat([torch.ones(draws), -torch.ones(draws)]).double()
    order = torch.rand(HALVES, images, 2 * draws, generator=generator("halves")).argsort(2)
    energies = -torch.einsum("pni,nij,pnj->p", ours[order], distances, ours[order]) / images
    ours = ours.expand(1, images, -1)
    energy = float(-torch.einsum("pni,nij,pnj->p", ours, distances, ours)[0]) / images
    return energy > float(energies.mean() + SURE * energies.std()) + 1e-6


def _gap(found: float) -> str:
    return f"{found:.2g} of the usual gap between two logits"
