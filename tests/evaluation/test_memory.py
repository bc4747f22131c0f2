"""Memory is bounded by the batch, whatever the images' size and the number of classes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import resource

import torch
from torch import nn

from turncoat.evaluation import evaluate

class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(192, 1000)

    def forward(self, images):
        return self.head(nn.functional.adaptive_avg_pool2d(images, 8).flatten(1))

torch.manual_seed(0)
network, images = Pooled().eval(), torch.rand(20, 3, 224, 224)
labels = network(images).argmax(1)
labels[0] = 999  # so that there are as many classes as logits to the check on a linear classifier
result = evaluate(network, images, labels, ("linf", 4 / 255), {"auto": {"attack": "autoattack"}}, batch_size="auto")
print(int(result.clean.sum()), "unchecked" in {flag.name for flag in result.flags})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if __import__("sys").platform == "darwin" else 1024))
"""


@pytest.mark.slow
def test_a_thousand_classes_of_224_pixels_take_less_than_6_gb() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    measured, peak = done.stdout.splitlines()
    assert measured == "19 False"
    assert int(peak) < 6e9
