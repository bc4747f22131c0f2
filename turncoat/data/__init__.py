"""Data sets: fetched, verified, split, and kept as plain arrays; `load` is all that training and evaluation need.

Importing this package imports numpy only.
"""

from turncoat.data.store import SPLITS, Dataset, Split, load, save

__all__ = ["SPLITS", "Dataset", "Split", "load", "save"]
