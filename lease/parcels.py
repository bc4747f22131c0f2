"""What comes back: few files, none too large. Results first, then weights in half precision while there is room."""

import re
import tarfile
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from turncoat.errors import TurncoatError

PART = re.compile(r"(.+)\.(\d{2})$")


def cut(file: Path, out: Path, most: int) -> list[Path]:
    """`file` in `out`, as file.00, file.01 ... where it is larger than `most` bytes."""
    content = file.read_bytes()
    if len(content) <= most:
        (out / file.name).write_bytes(content)
        return [out / file.name]
    made = []
    for number, start in enumerate(range(0, len(content), most)):
        made.append(out / f"{file.name}.{number:02}")
        made[-1].write_bytes(content[start : start + most])
    return made


def parts(size: int, most: int) -> int:
    """How many files of at most `most` bytes `size` bytes need."""
    return max(1, -(-size // most))


def cast(weights: Path, to: Path, dtype: torch.dtype) -> Path:
    """A copy of safetensors with its floating point tensors in `dtype`; its metadata stay."""
    with safe_open(weights, "pt") as opened:
        metadata = opened.metadata()
    tensors = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in load_file(weights).items()
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, to, metadata)
    return to


def wrap(named: Iterable[tuple[str, Path]], target: Path) -> Path:
    """A .tar of files under names."""
    with tarfile.open(target, "w") as packed:
        for name, path in named:
            packed.add(path, name)
    return target


def joined(folders: Iterable[Path], into: Path) -> list[Path]:
    """The files of several folders, with parts put together, in `into`.

    Raises:
        TurncoatError: a part is missing.
    """
    pieces: dict[str, dict[int, Path]] = {}
    made = []
    into.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if found := PART.fullmatch(path.name):
                pieces.setdefault(found[1], {})[int(found[2])] = path
            elif path.is_file():
                (into / path.name).write_bytes(path.read_bytes())
                made.append(into / path.name)
    for name, numbered in pieces.items():
        if sorted(numbered) != list(range(len(numbered))):
            raise TurncoatError(f"{name}: parts {sorted(numbered)} are here, and one between them is not")
        (into / name).write_bytes(b"".join(numbered[number].read_bytes() for number in sorted(numbered)))
        made.append(into / name)
    return made
