"""What is done, of itself, when a flag is raised: other attacks on what stands, through what made gradients useless."""

import copy

import torch
from torch import Tensor, nn

from turncoat.attacks import Threat, apgd, pgd, square
from turncoat.evaluation.flags import points
from turncoat.evaluation.ladder import standing
from turncoat.evaluation.planned import Planned
from turncoat.evaluation.results import ITERATIVE, SECOND_LOOK, Evaluation
from turncoat.evaluation.runner import Runner


def looks(random: bool) -> dict[str, Planned]:
    """More steps, another loss (free of the logits' scale), a black box; on a random network each through EOT."""
    if random:
        chosen = {
            "eot": Planned(pgd, {"steps": 50, "relative_step": 0.1}, eot=10),
            "loss": Planned(apgd, {"steps": 20, "loss": "dlr"}, eot=10),
            "square": Planned(square, {"queries": 200}, eot=5),
        }
    else:
        chosen = {
            "steps": Planned(pgd, {"steps": 200, "relative_step": 0.05, "restarts": 2}),
            "loss": Planned(apgd, {"steps": 100, "loss": "dlr"}),
            "square": Planned(square, {"queries": 1000}),
        }
    return {SECOND_LOOK + name: planned for name, planned in chosen.items()}


def second_look(runner: Runner, result: Evaluation, threat: Threat) -> float:
    """Attack what stands once more; what falls is gone from the worst case.

    Returns the points of the worst case that the last gradient attack took off: where two strong ones in a row take
    something off, a third would too.
    """
    last = 0.0
    for name, planned in looks(runner.random).items():
        before = points(result.worst)
        among = standing(result, planned)
        runner.apply(result, name, planned, threat, among)
        result.met[name] = int(among.sum())
        if planned.kind == ITERATIVE:
            last = before - points(result.worst)
    return last


class Logarithm(nn.Module):
    """Logits out of a network's probabilities: the softmax that hid them undone.

    In float64, where the network can: in float32 the probabilities that an attack has to raise are 0 already.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        """`images`: one or more to try it on."""
        super().__init__()
        self.model, self.dtype = model, images.dtype
        try:
            precise = copy.deepcopy(model).double()
            with torch.no_grad():
                precise(images.double())
        except (RuntimeError, TypeError):  # a network of somebody's own, bound to float32
            pass
        else:
            self.model, self.dtype = precise, torch.float64
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) to (n, k) float32: the same predictions."""
        probabilities: Tensor = self.model(images.to(self.dtype))
        return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log().float()
