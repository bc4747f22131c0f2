"""Which job each cell was given to: what lets another head find the jobs again instead of submitting twice."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from stages.cluster.arrays import Place
from stages.cluster.done import FOLDER
from turncoat.files import read_json, write_json

FILE = FOLDER / "ledger.json"


@dataclass
class Ledger:
    """Attributes: cells: name -> its job; digests: name -> of what the job was submitted for; closing: that job."""

    cells: dict[str, Place] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    closing: Place | None = None

    @classmethod
    def read(cls, file: Path = FILE) -> Self:
        """As the last head left it; empty where there was none."""
        if not file.exists():
            return cls()
        kept = read_json(file)
        closing = kept["closing"]
        cells = {name: Place(**place) for name, place in kept["cells"].items()}
        return cls(cells, kept["digests"], Place(**closing) if closing else None)

    def write(self, file: Path = FILE) -> None:
        """After each submission, so that no job is forgotten."""
        write_json(file, asdict(self))

    def enter(self, names: Iterable[str], places: Iterable[Place], digests: Mapping[str, str]) -> None:
        """These cells were given to these jobs."""
        for name, place in zip(names, places, strict=True):
            self.cells[name], self.digests[name] = place, digests[name]
        self.write()
