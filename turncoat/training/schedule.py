"""Learning rates as functions of progress, so that a resumed run needs no scheduler state."""

import math

from turncoat.settings import TrainingSettings


def learning_rate(settings: TrainingSettings, progress: float) -> float:
    """The rate at `progress` in [0, 1), the share of all steps that are done.

    `warmup` rises linearly from 0. Then `cosine` falls to 0, `step` drops at its milestones, `constant` stays; `cyclic`
    is one triangle that peaks at `warmup` (or, without one, at 0.4: Wong et al. 2020) and ends at 0.
    """
    peak = settings.warmup or (0.4 if settings.schedule == "cyclic" else 0.0)
    if progress < peak:
        return settings.lr * progress / peak
    rest = (progress - peak) / (1 - peak)
    match settings.schedule:
        case "cosine":
            return settings.lr * (1 + math.cos(math.pi * rest)) / 2
        case "cyclic":
            return settings.lr * (1 - rest)
        case "step":
            return settings.lr * settings.decay ** sum(progress >= milestone for milestone in settings.milestones)
        case "constant":
            return settings.lr
