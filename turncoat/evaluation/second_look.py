"""What is done, of itself, when a flag is raised: other attacks on what stands, through what made gradients useless."""

import numpy as np
from torch import Tensor, nn

from turncoat.attacks import Threat, apgd, pgd, square
from turncoat.evaluation.results import BLACK_BOX, ITERATIVE, Bools, Evaluation
from turncoat.evaluation.runner import Runner
from turncoat.evaluation.suite import Planned

PREFIX = "second-look-"
SMALLEST = 1e-30  # a probability whose logarithm float32 can still take


def looks(random: bool) -> dict[str, Planned]:
    """More steps, another loss (free of the logits' scale), a black box; for a random network EOT and fixed draws."""
    if random:
        chosen = {
            "eot": Planned(apgd, {"steps": 50}, eot=20),
            "fixed": Planned(apgd, {"steps": 100, "loss": "dlr"}, fixed=True),
        }
    else:
        chosen = {
            "steps": Planned(pgd, {"steps": 200, "step": 0.05, "restarts": 2}),
            "loss": Planned(apgd, {"steps": 100, "loss": "dlr"}),
        }
    chosen["square"] = Planned(square, {"queries": 1000})
    return {PREFIX + name: planned for name, planned in chosen.items()}


def second_look(runner: Runner, result: Evaluation, threat: Threat) -> Bools:
    """Attack what stands once more; what falls is gone from the worst case.

    Returns who fell to the last gradient attack: where two strong ones in a row take something off, a third would too.

    The gradient attacks also meet what only a black box or a single step has turned: whether gradients can turn it is
    what some flags hang on.
    """
    last = np.zeros_like(result.clean)
    for name, planned in looks(runner.random).items():
        before = result.worst
        among = before if planned.kind == BLACK_BOX else result.standing(ITERATIVE)
        runner.apply(result, name, planned, threat, among)
        result.met[name] = int(among.sum())
        if planned.kind == ITERATIVE:
            last = before & ~result.correct[name]
    return last


class Logarithm(nn.Module):
    """Logits out of a network's probabilities: the softmax that hid them undone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) to (n, k): the same predictions."""
        probabilities: Tensor = self.model(images)
        return probabilities.clamp_min(SMALLEST).log()
