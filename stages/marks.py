"""Which cells of a study without DVC are done: a mark each, which holds as long as what its results rest on.

What that is, dvc.yaml says: the cell's command, the files with the checksums of its code and with its part of
params.yaml, and the same of all that it follows.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from stages.pipeline import Cell
from turncoat.files import checksum, write_atomic

FOLDER = Path(".scratch/bare")


class Marks:
    """The marks of a study: that of `inputs` by the files it reads, all others by what it has written."""

    def __init__(self, cells: Mapping[str, Cell]) -> None:
        self.cells = cells
        self._digests: dict[str, str] = {}

    def done(self, cell: Cell) -> bool:
        """Whether the cell was finished with these settings, this code, and on such files, and its files are there."""
        mark = FOLDER / cell.name
        there = mark.is_file() and all(Path(out).exists() for out in cell.outs)
        return there and mark.read_text() == self.digest(cell)

    def set(self, cell: Cell) -> None:
        """The cell is finished."""
        write_atomic(FOLDER / cell.name, self.digest(cell))

    def digest(self, cell: Cell) -> str:
        """Hex SHA-256 of all that the cell's results rest on."""
        if cell.name not in self._digests:
            before = [self.cells[name] for name in cell.follows if self.cells[name].stage != "inputs"]
            made = [out for other in before for out in other.outs]
            # what no cell makes, or `inputs`, which is run first, is there to be read
            read = [dep for dep in cell.deps if not any(_overlap(dep, out) for out in made)]
            parts = [
                cell.command[1:],
                {dep: checksum(dep) for dep in read},
                [self.digest(other) for other in before],
            ]
            self._digests[cell.name] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return self._digests[cell.name]


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
