"""Attacks: functions `attack(model, images, labels, threat, *, ..., generator) -> images`, without side effects.

Losses, threats, starts and steps compose: see losses.py and pgd.py. What a random or masked network needs on top is a
wrapper of the network: `eot`, `bpda`, `fixed`.
"""

from .apgd import apgd, apgd_t
from .ascent import ascent
from .autoattack import autoattack, ensemble
from .corruptions import CORRUPTIONS
from .deepfool import deepfool
from .engine import Counter, attacked, fallen, input_gradient
from .fab import fab, fab_t
from .fgsm import fgsm
from .folded import folded
from .losses import kl
from .momentum import momentum
from .pgd import pgd
from .shifts import SHIFTS
from .spatial import rotate_translate, stadv
from .square import square
from .threat import NORMS, Threat
from .transfer import transfer
from .universal import perturb, universal_deepfool, universal_sgd, universal_success
from .wrappers import bpda, eot, fixed

ATTACKS = {
    "fgsm": fgsm,
    "pgd": pgd,
    "momentum": momentum,
    "apgd": apgd,
    "apgd-t": apgd_t,
    "fab": fab,
    "fab-t": fab_t,
    "square": square,
    "autoattack": autoattack,
    "deepfool": deepfool,
    "stadv": stadv,
    "rotate-translate": rotate_translate,
}

__all__ = [
    "ATTACKS",
    "CORRUPTIONS",
    "NORMS",
    "SHIFTS",
    "Counter",
    "Threat",
    "apgd",
    "apgd_t",
    "ascent",
    "attacked",
    "autoattack",
    "bpda",
    "deepfool",
    "ensemble",
    "eot",
    "fab",
    "fab_t",
    "fallen",
    "fgsm",
    "fixed",
    "folded",
    "input_gradient",
    "kl",
    "momentum",
    "perturb",
    "pgd",
    "rotate_translate",
    "square",
    "stadv",
    "transfer",
    "universal_deepfool",
    "universal_sgd",
    "universal_success",
]
