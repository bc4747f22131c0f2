"""What RAT's figures show of the trained networks: FGSM over its radius, which class gives way to which perturbation.

Wang et al. 2021 (arXiv 2008.07838).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from turncoat.attacks import Threat, fgsm
from turncoat.methods.universal import StoredSettings, class_perturbations, reached, stratified
from turncoat.papers.material import BESIDE, Findings, Material
from turncoat.settings import validate

RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # of FGSM, in units of epsilon


def analyse(material: Material) -> Findings:
    """FGSM over its radius, and which class gives way to which universal perturbation.

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


def fgsm_curves(
    network: nn.Module, source: nn.Module, images: Tensor, labels: Tensor, threat: Threat, radii: Sequence[float]
) -> dict[str, list[int]]:
    """Right answers under FGSM at each of `radii`, in units of epsilon; 0 is the image itself.

    Returns: `white-box`, against the network itself, and `transferred`, images made against `source`.
    """
    curves: dict[str, list[int]] = {"white-box": [], "transferred": []}
    for counts, attacked in zip(curves.values(), (network, source), strict=True):
        for radius in radii:
            seen = images
            if radius:
                seen = fgsm(attacked, images, labels, replace(threat, epsilon=radius * threat.epsilon))
            with torch.no_grad():
                counts.append(int((network(seen).argmax(1) == labels).sum()))
    return curves
