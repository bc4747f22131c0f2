"""Counted generators: every random draw is a function of a key, never of what ran before.

A generator for `(seed, "augment", epoch, step)` gives the same stream in a fresh process, after a resume, and for any
number of worker threads, so no generator state has to be stored in a checkpoint.
"""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from a key of integers and strings."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*key: int | str, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """A fresh `torch.Generator` on `device`, seeded by the key."""
    import torch

    return torch.Generator(device=device).manual_seed(seed_of(*key))
