"""The exact robustness of a linear classifier, against a linear-programming solver and a general optimiser."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from turncoat.attacks import Threat
from turncoat.evaluation.closed_form import NearestMean, _largest_gain, can_fall


def by_solver(slopes: np.ndarray, room: np.ndarray, threat: Threat) -> float:
    """Maximum of slopes * move, 0 <= move <= room, norm(move) <= epsilon."""
    if threat.norm == "l2":
        start = room * min(1.0, threat.epsilon / np.linalg.norm(room)) * 0.5
        found = minimize(
            lambda move: -slopes @ move,
            start,
            jac=lambda move: -slopes,
            bounds=[(0, r) for r in room],
            constraints={
                "type": "ineq",
                "fun": lambda move: threat.epsilon**2 - move @ move,
                "jac": lambda move: -2 * move,
            },
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )
        return -found.fun
    limit = room if threat.norm == "l1" else np.minimum(room, threat.epsilon)
    ball = {"A_ub": np.ones((1, len(room))), "b_ub": [threat.epsilon]} if threat.norm == "l1" else {}
    return -linprog(-slopes, bounds=[(0, r) for r in limit], **ball).fun


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("epsilon", [0.05, 0.3, 0.9])
def test_largest_gain_is_the_solvers_optimum(norm: str, epsilon: float) -> None:
    draw = np.random.default_rng(int(100 * epsilon))
    threat = Threat(norm, epsilon)
    for _ in range(10):
        slopes, room = draw.exponential(size=12), draw.uniform(size=12)
        ours = _largest_gain(torch.tensor(slopes)[None], torch.tensor(room)[None], threat)
        assert float(ours) == pytest.approx(by_solver(slopes, room, threat), rel=1e-5)


@pytest.mark.parametrize("threat", [Threat("linf", 0.1), Threat("l2", 0.6), Threat("l1", 3.0)])
def test_no_random_image_contradicts_it(threat: Threat, images: torch.Tensor, labels: torch.Tensor) -> None:
    model = NearestMean(images, labels)
    falls = can_fall(model, images, labels, threat)
    right = model(images).argmax(1) == labels
    assert 0 < int((falls & right).sum()) < int(right.sum())
    draw = torch.Generator().manual_seed(0)
    for _ in range(200):
        tried = threat.random_start(images, draw)
        assert bool((model(tried).argmax(1) == labels)[right & ~falls].all())


def test_nearest_mean_predicts_the_nearest_mean(images: torch.Tensor, labels: torch.Tensor) -> None:
    model = NearestMean(images, labels)
    means = torch.stack([images[labels == k].mean(0) for k in range(10)])
    distances = (images[:, None] - means[None]).flatten(2).norm(dim=2)
    assert torch.equal(model(images).argmax(1), distances.argmin(1))
    without = labels != 3
    assert not bool((NearestMean(images[without], labels[without])(images).argmax(1) == 3).any())
