import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from turncoat.attacks import Threat

THREAT = Threat("linf", 0.15)


def digits() -> tuple[Tensor, Tensor]:
    """All digits of scikit-learn, (1797, 1, 8, 8) in [0, 1], in a fixed mixed order."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return torch.tensor(images[order] / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels[order])


@pytest.fixture(scope="session")
def network() -> nn.Module:
    """A small network without a defence: right on nearly all digits, and on next to none under attack."""
    images, labels = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        adam = torch.optim.Adam(made.parameters(), 0.01)
        for _ in range(60):
            adam.zero_grad()
            functional.cross_entropy(made(images[300:]), labels[300:]).backward()
            adam.step()
    made.zero_grad()
    return made.eval()


@pytest.fixture(scope="session")
def images() -> Tensor:
    return digits()[0][:200]


@pytest.fixture(scope="session")
def labels() -> Tensor:
    return digits()[1][:200]
