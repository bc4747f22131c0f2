"""Names that a reader meets, in plain words: attacks from their settings in the suite, terms of the claims."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

KINDS = {
    "fgsm": "one step along the sign of the gradient",
    "pgd": "{steps} gradient steps within the radius (PGD)",
    "momentum": "{steps} gradient steps with momentum",
    "apgd": "{steps} gradient steps whose size adapts (APGD)",
    "apgd-t": "the same towards single wrong classes, {steps} steps each",
    "fab": "FAB, the least change that errs",
    "fab-t": "FAB towards single wrong classes",
    "square": "random squares, without any gradient (a black box)",
    "autoattack": "AutoAttack, the field's standard ensemble of attacks",
    "deepfool": "DeepFool, the least change that errs",
    "transfer": "images made against the baseline, without sight of this network (a black box)",
    "stadv": "pixels moved, not changed",
    "rotate-translate": "rotations and translations",
}
BESIDE = {
    "loss": {"margin": "on the margin of the logits", "dlr": "on the ratio of logit differences"},
    "among": {"standing": "only on images that are still right"},
}
TERMS = {
    "PGD": "projected gradient descent, many small steps that raise the loss, within a radius ε of the image; the "
    "number counts them",
    "FGSM": "a single such step",
    "AutoAttack": "the field's standard ensemble of four attacks",
    "EOT|expectation over transformation": "EOT, for networks that draw at random: each gradient is the mean over many "
    "draws",
    "worst case": "an image counts only if no attack of the suite succeeds on it",
    "adversarial training": "training on attacked images",
    "universal perturbation": "one change for all images",
    "quantised": "with weights and activations of a few bits",
    "benign|clean": "of images that nobody attacked",
    "unseen data transformation": "of a kind that training left out",
    "ℓ2 ball": "changes bounded by their Euclidean length, not pixel by pixel",
}


def attack(settings: Mapping[str, Any]) -> str:
    """An attack's entry of the suite in words; one of a kind that is not listed here goes by its name."""
    kind = str(settings.get("attack", ""))
    said = KINDS.get(kind, kind).replace("{steps}", str(settings.get("steps", "")) or "its usual")
    parts = [said, *(words[settings[key]] for key, words in BESIDE.items() if settings.get(key) in words)]
    if settings.get("restarts", 1) > 1:
        parts.append(f"from {settings['restarts']} starts")
    if settings.get("eot"):
        parts.append(f"each gradient the mean over {settings['eot']} draws of a random network (EOT)")
    if settings.get("doublings"):
        parts.append("steps and draws doubled as long as that helps")
    if settings.get("bpda"):
        parts.append("past a purifier as if it changed nothing (BPDA)")
    if settings.get("alone"):
        parts.append("on the classifier behind a purifier alone")
    return ", ".join(parts)


def met(texts: Iterable[str]) -> dict[str, str]:
    """Of the terms those that stand in the texts, as they stand there first, with their meaning."""
    text = " ".join(texts)
    found = {means: re.search(term, text, re.IGNORECASE) for term, means in TERMS.items()}
    return {match[0]: means for means, match in found.items() if match}
