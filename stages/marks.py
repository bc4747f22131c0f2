"""Which cells of a study without DVC are done: a mark each, which holds as long as what its results rest on.

What that is, dvc.yaml says: the cell's command, its code and its part of params.yaml, and the same of all that it
follows.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from stages.pipeline import Cell, part
from turncoat.errors import TurncoatError
from turncoat.files import checksum, read_json, write_atomic

FOLDER = Path(".scratch/bare")


class Marks:
    """The marks of a study: that of `inputs` by the files it reads, all others by what it has written."""

    def __init__(self, cells: Mapping[str, Cell]) -> None:
        self.cells = cells
        self._digests: dict[str, str] = {}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """params.yaml as `inputs` found it."""
        settings: dict[str, Any] = read_json("data/settings.json")
        return settings

    def _setting(self, name: str) -> Any:
        """The value at a dotted name; None where it is left to its default."""
        try:
            return part(self.settings, name)
        except TurncoatError:
            return None

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
                {name: self._setting(name) for name in cell.params},
                {dep: checksum(dep) for dep in read},
                [self.digest(other) for other in before],
            ]
            self._digests[cell.name] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return self._digests[cell.name]


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
