"""The papers' chapters of the report, from their folders. Imports neither torch nor a method."""

from collections.abc import Sequence
from pathlib import Path

from turncoat.errors import TurncoatError
from turncoat.papers import PAPERS
from turncoat.papers.parts import FOLDER, part
from turncoat.reporting import claims
from turncoat.reporting.chapter import Chapter


def load(papers: Sequence[str] = PAPERS, folder: Path = FOLDER) -> list[Chapter]:
    """Claims and diagram of each paper from its folder below `folder`, its figures and tables from its modules.

    Raises:
        TurncoatError: a file is missing, or claims.yaml has a fault; names the file.
    """
    return [_chapter(name, folder / name) for name in papers]


def _chapter(name: str, folder: Path) -> Chapter:
    drawing, figures, tables = folder / "diagram.svg.j2", part(name, "figures"), part(name, "tables")
    dense = part(name, "dense_figures")
    if not drawing.exists():
        raise TurncoatError(f"{drawing}: the paper's diagram is missing")
    return Chapter(
        claims.load(folder / "claims.yaml", name),
        drawing.read_text(),
        getattr(figures, "FIGURES", {}),
        getattr(dense, "FIGURES", {}),
        getattr(tables, "TABLES", {}),
    )
