"""The analyses of each paper over the arms of a study, as the figures want them: JSON values, and arrays for the rest.

AdvAmd: Yu, Chen, Gan, IJCAI 2023. RAT: Wang et al. 2021 (arXiv 2008.07838). Reverse: Ye et al. 2019 (arXiv 1905.12171).
AToP: Lin et al. 2024 (arXiv 2401.16352).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from turncoat.attacks import SHIFTS, Threat, eot, pgd
from turncoat.data.batches import DeviceSplit
from turncoat.evaluation.analysis import before_and_after, fgsm_curves, judgement_surface, mismatch, vulnerability
from turncoat.evaluation.purified import STEP, by_steps, on_the_way
from turncoat.evaluation.results import DRAWS
from turncoat.methods.universal import StoredSettings, class_perturbations, reached, stratified
from turncoat.models.calibrator import Frozen
from turncoat.models.purifier import Pipeline
from turncoat.randomness import generator
from turncoat.settings import validate

IMAGES = 500  # test images, at most; vulnerability is of all
ON_SURFACE = 32  # images whose judgement surface is averaged
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # of FGSM, in units of epsilon
SEVERITY = 5  # of the shifts that calibrators meet
ON_STEPS = 100  # images whose fall is followed step by step
LOOKS = (0, 1, 2, 4, 8, 16, 32)  # steps after which it is looked at, and twice as many each, while it falls
MOST_STEPS = 128
EOT = (1, 5, 20)  # draws over which the attack's loss is averaged
SHOWN = 6  # images on their way through a purifier
BESIDE = ("standard", "pgd")  # methods that the others are compared with

Found: TypeAlias = tuple[dict[str, Any], dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class Arm:
    """A trained arm: its settings, and its deployed network for whoever asks."""

    plan: Mapping[str, Any]
    load: Callable[[], nn.Module]


@dataclass(frozen=True)
class Material:
    """What the analyses of one data set and seed look at.

    Attributes:
        test: the images that were attacked; attacked: (n, c, h, w), made against the baseline.
        made: of each way of making universal perturbations, what perturbed.json says; universal: (classes, c, h, w).
    """

    arms: Mapping[str, Arm]
    baseline: nn.Module
    train: DeviceSplit
    test: DeviceSplit
    classes: int
    threat: Threat
    seed: int
    attacked: Tensor
    made: Mapping[str, Mapping[str, Any]]
    universal: Mapping[str, Tensor]

    def of(self, *methods: str) -> dict[str, Arm]:
        """The arms of these methods, in the order of the study."""
        return {name: arm for name, arm in self.arms.items() if arm.plan["method"] in methods}

    @property
    def few(self) -> DeviceSplit:
        """The first `IMAGES` test images."""
        return DeviceSplit(self.test.images[:IMAGES], self.test.labels[:IMAGES])

    def source(self, *key: str) -> torch.Generator:
        """Randomness of this seed, the same for every arm."""
        return generator(self.seed, "analyse", *key, device=self.test.labels.device)


def amendment(material: Material) -> Found:
    """AdvAmd: who is vulnerable, how far mediate and adversarial images lie from benign ones, how the loss is shaped.

    Vulnerability is the baseline's under the stored attack, (n,). Mismatch and surface are each network's own, under
    PGD-20, of standard and PGD training and of all AdvAmd arms.
    """
    whole, images, labels = material.test, material.few.floats(), material.few.labels
    taken = vulnerability(material.baseline, whole.floats(), whole.labels, material.attacked)
    arrays: dict[str, NDArray[Any]] = {"vulnerability": taken}
    gaps, surfaces = {}, {}
    for name, arm in material.of(*BESIDE, "advamd").items():
        network, source = arm.load(), material.source()
        adversarial = pgd(network, images, labels, material.threat, steps=20, generator=source)
        middle = (images + adversarial) / 2
        gaps[name] = mismatch(network, {"benign": images, "mediate": middle, "adversarial": adversarial})
        here = slice(0, ON_SURFACE)
        surface = judgement_surface(network, images[here], labels[here], adversarial[here], source)
        for key in ("loss", "accuracy"):
            arrays[f"{key}-{name}"] = np.array(surface.pop(key), np.float32)
        decisions = surface.pop("decisions")
        arrays[f"decisions-{name}"] = np.array([shown["predicted"] for shown in decisions], np.int16)
        surfaces[name] = surface | {"labels": [shown["label"] for shown in decisions]}
    return {"mismatch": gaps, "surface": surfaces}, arrays


def retraining(material: Material) -> Found:
    """RAT: FGSM over its radius, and which class gives way to which universal perturbation.

    FGSM is white-box and transferred from the baseline, for standard and PGD training and all RAT arms. Perturbations
    are those stored for the baseline, on it (`before`) and on the first arm that was retrained on targeted ones
    (`stored`), and those made anew against that arm in the same way (`new`): counts (class, target).
    """
    threat, few, classes = material.threat, material.few, material.classes
    images, labels = few.floats(), few.labels
    radii = [radius for radius in RADII if threat.norm != "linf" or radius * threat.epsilon <= 1]
    curves = {
        name: fgsm_curves(arm.load(), material.baseline, images, labels, threat, radii)
        for name, arm in material.of(*BESIDE, "rat").items()
    }
    told: dict[str, Any] = {"n": len(few), "radii": radii, "fgsm": curves}
    arrays: dict[str, NDArray[Any]] = {}
    targeted = [name for name, arm in material.of("rat").items() if arm.plan["perturbation"] == "targeted"]
    if targeted and material.made:
        form = max(material.made, key=lambda name: sum(row["reached"] for row in material.made[name]["targets"]))
        how = {name: value for name, value in material.made[form].items() if name != "targets"}
        plan = validate(StoredSettings, how, f"universal.{form}")
        network, old = material.arms[targeted[0]].load(), material.universal[form]
        seen = stratified(material.train, plan.images, material.seed)
        new = class_perturbations(network, seen, threat, range(classes), plan, material.seed)
        for name, victim, changes in (
            ("before", material.baseline, old),
            ("stored", network, old),
            ("new", network, new),
        ):
            rows = [reached(victim, few, change, target, classes)["from"] for target, change in enumerate(changes)]
            arrays[name] = np.array(rows, np.int32).T
        arrays["perturbations"] = new.cpu().numpy()
        told |= {"arm": targeted[0], "form": form, "of_class": labels.bincount(minlength=classes).tolist()}
    return told, arrays


def calibration(material: Material) -> Found:
    """Reverse: what each calibrator does to the confidence under each shift, and to one image of each.

    Arrays of an arm: `confidence` (scenes, bins, bins), `changes` (scenes, c, h, w), `answers` (2, scenes, classes),
    the probabilities for one image of each scene before and after the calibrator.
    """
    images, labels = material.few.floats(), material.few.labels
    scenes = {"clean": images}
    scenes |= {name: shift(images, SEVERITY, material.source(name)) for name, shift in SHIFTS.items()}
    places = [place % len(images) for place in range(len(scenes))]
    shown = torch.stack([scene[place] for place, scene in zip(places, scenes.values(), strict=True)])
    arrays: dict[str, NDArray[Any]] = {"images": shown.cpu().numpy(), "labels": labels[places].cpu().numpy()}
    shares = {}
    for name, arm in material.of("reverse").items():
        pipeline = arm.load()
        assert isinstance(pipeline, Frozen)
        looked = {scene: before_and_after(pipeline, seen, labels) for scene, seen in scenes.items()}
        shares[name] = {scene: told for scene, (told, _) in looked.items()}
        with torch.no_grad():
            mended = pipeline.calibrate(shown)
            answers = torch.stack([pipeline.classifier(each).float().softmax(1) for each in (shown, mended)])
        arrays[f"confidence-{name}"] = np.stack([counts for _, counts in looked.values()])
        arrays[f"changes-{name}"] = (mended - shown).cpu().numpy()
        arrays[f"answers-{name}"] = answers.cpu().numpy()
    return {"severity": SEVERITY, "scenes": list(scenes), "arms": shares}, arrays


def purification(material: Material) -> Found:
    """AToP: images on their way through each purified network, and its accuracy by draws and steps of the attack.

    Arrays: `images` (shown, c, h, w) and `labels`; of an arm `attacked`, `transformed`, `purified` (shown, c, h, w) and
    `answers` (2, shown), to the image and to the attacked one; `right` (draws, steps, n), of `scored` draws of an image
    how many are right, -1 after steps that an attack no longer took.
    """
    split, seed = material.few, material.seed
    images, labels = split.floats(0, ON_STEPS), split.labels[:ON_STEPS]
    few, theirs = images[:SHOWN], labels[:SHOWN]
    arrays: dict[str, NDArray[Any]] = {"images": few.cpu().numpy(), "labels": theirs.cpu().numpy()}
    told = {}
    for name, arm in material.of("purifier", "atop").items():
        network = arm.load()
        assert isinstance(network, Pipeline)
        draws = (1,) if network.transform.spec["name"] == "none" else EOT
        counts = [
            by_steps(network, images, labels, material.threat, draws=count, looks=LOOKS, seed=seed, most=MOST_STEPS)
            for count in draws
        ]
        reached = max(len(looked) for looked in counts)
        counts = [np.pad(c, ((0, reached - len(c)), (0, 0)), constant_values=-1) for c in counts]
        averaged = eot(network, draws[-1])
        attacked = pgd(averaged, few, theirs, material.threat, steps=20, generator=material.source("shown"))
        plain, way = on_the_way(network, few, seed), on_the_way(network, attacked, seed)
        answers = torch.stack([plain["answers"], way["answers"]])
        mine = {
            "attacked": attacked,
            "transformed": way["transformed"],
            "purified": way["purified"],
            "answers": answers,
        }
        arrays |= {f"{key}-{name}": value.cpu().numpy() for key, value in mine.items()}
        arrays[f"right-{name}"] = np.stack(counts)
        steps = [*LOOKS, *(LOOKS[-1] << more for more in range(1, reached - len(LOOKS) + 1))]
        told[name] = {"draws": list(draws), "steps": steps}
    return {"n": len(labels), "scored": DRAWS, "step": STEP, "arms": told}, arrays


ANALYSES: dict[str, Callable[[Material], Found]] = {
    "advamd": amendment,
    "rat": retraining,
    "reverse": calibration,
    "atop": purification,
}
