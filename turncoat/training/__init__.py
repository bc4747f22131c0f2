"""The one training loop, which knows no method, and what it stands on."""

from turncoat.training.cell import copied_cell, given_cell, initialised, train_cell
from turncoat.training.checkpoint import Checkpoint, Scratch, duration, duration_file, fingerprint
from turncoat.training.compute import Compute, resolve
from turncoat.training.loop import Trainable, Trained, fit
from turncoat.training.schedule import learning_rate

__all__ = [
    "Checkpoint",
    "Compute",
    "Scratch",
    "Trainable",
    "Trained",
    "copied_cell",
    "duration",
    "duration_file",
    "fingerprint",
    "fit",
    "given_cell",
    "initialised",
    "learning_rate",
    "resolve",
    "train_cell",
]
