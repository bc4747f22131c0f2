"""What a paper brings to the report: its claims, its diagram, and the figures and tables that it alone has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from turncoat.reporting.claims import Paper
from turncoat.reporting.study import Study
from turncoat.reporting.style import Look, Picture
from turncoat.reporting.table import Table

# of a study, a data set, the arms, and how each of them is drawn; None where the measures are not there
Drawer: TypeAlias = Callable[[Study, str, Sequence[str], Mapping[str, Look]], Picture]
Maker: TypeAlias = Callable[[Study, str, Sequence[str]], Table | None]


@dataclass(frozen=True)
class Chapter:
    """A paper's section of the page.

    Attributes:
        diagram: the Jinja template of an SVG in a box 340 wide; templates/shapes.svg.j2 has boxes and arrows.
        figures: name -> title and drawer; saved as `<paper>-<name>-<data set>`.
        dense_figures: the same, on data sets of segmentation and detection.
        tables: name -> maker; each table is named `<paper>-<name>-<data set>`.
    """

    paper: Paper
    diagram: str
    figures: Mapping[str, tuple[str, Drawer]] = field(default_factory=dict)
    dense_figures: Mapping[str, tuple[str, Drawer]] = field(default_factory=dict)
    tables: Mapping[str, Maker] = field(default_factory=dict)
