"""Attacks: functions `attack(model, images, labels, threat, *, ..., generator) -> images`, without side effects."""

from .engine import Counter, attacked, fallen, input_gradient
from .fgsm import fgsm
from .pgd import pgd
from .threat import NORMS, Threat

ATTACKS = {"fgsm": fgsm, "pgd": pgd}

__all__ = ["ATTACKS", "NORMS", "Counter", "Threat", "attacked", "fallen", "fgsm", "input_gradient", "pgd"]
