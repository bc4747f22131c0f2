"""Figures on the page: in rows without holes, with room kept for them, and in other colours where it is dark."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from turncoat.reporting.drawing import Drawn
from turncoat.reporting.style import COLUMN

FULL = 3.9  # width of a row in units of its height: three figures of one column
LEAST = 3.4  # a row of less, of single columns, has its captions beside: below, its figures would be too large

# Colours of matplotlib's text, rules and backgrounds, and of arms too dark for a dark page, with what stands for them.
DARK = {
    "#ffffff": "#14171a",
    "#000000": "#e8eaed",
    "#262626": "#e8eaed",
    "#e3e3e3": "#333b43",
    "#555555": "#aab2bb",
    "#c4c4c4": "#59626b",
    "#0072b2": "#4ea8e6",
    "#009e73": "#2fc79b",
    "#d55e00": "#ff8a3d",
    "#8c564b": "#c99a8d",
    "#661100": "#d98d7c",
    "#882255": "#e07aa9",
    "#332288": "#9d90f2",
    "#999933": "#c2c25a",
    "#aa4499": "#db84cd",
    "#cc79a7": "#e39bc4",
    "#005a3c": "#6fd6ae",
    "#a33f00": "#ffa574",
}


@dataclass(frozen=True)
class Picture:
    """A figure on the page: its data URI, and its width and height in points, the room to keep for it."""

    figure: Drawn
    uri: str
    width: float
    height: float

    @property
    def shape(self) -> float:
        """Width over height."""
        return self.width / self.height

    @property
    def wide(self) -> bool:
        """Whether it is of panels, or of words beside an axis, wider than a column of a paper."""
        return self.width > 1.1 * 72 * COLUMN


def of_page(folder: Path, drawn: Sequence[Drawn]) -> dict[tuple[str, str], list[list[Picture]]]:
    """{(paper or "", data set): its figures of the page, row by row}, read from the folder."""
    found: dict[tuple[str, str], list[Picture]] = {}
    for figure in drawn:
        if figure.inline:
            svg = (folder / f"{figure.name}.svg").read_text()
            # inside an <img> its ids cannot meet those of another figure
            uri = "data:image/svg+xml;base64," + base64.b64encode(dark(svg).encode()).decode()
            found.setdefault((figure.paper, figure.dataset), []).append(Picture(figure, uri, *size(svg)))
    return {whose: in_rows(pictures) for whose, pictures in found.items()}


def in_rows(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """The pictures in their order, cut into rows."""
    cut, first = [], 0
    for count in rows([picture.shape for picture in pictures]):
        cut.append(list(pictures[first : first + count]))
        first += count
    return cut


def rows(shapes: Sequence[float], full: float = FULL) -> list[int]:
    """How many figures each row takes, in their order, so that rows of one height are all as wide as can be alike.

    Args:
        shapes: width over height of each figure.
    """
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for end in range(1, len(shapes) + 1):
        tries = []
        for start in range(max(0, end - 4), end):
            cost, counts = best[start]
            off = (sum(shapes[start:end]) - full) / full
            tries.append((cost + off * off * (4 if off < 0 else 1), [*counts, end - start]))
        best.append(min(tries))
    return best[-1][1]


def size(svg: str) -> tuple[float, float]:
    """Width and height of a figure in points, as matplotlib writes them."""
    width, height = re.findall(r'\b(?:width|height)="([\d.]+)pt"', svg)[:2]
    return float(width), float(height)


def dark(svg: str) -> str:
    """The figure with a second set of colours, for whoever's browser asks for dark pages; on paper it stays light."""
    rules = [
        f'[style*="{way}: {light}"]{{{way}:{instead}!important}}'
        for light, instead in DARK.items()
        for way in ("fill", "stroke")
        if (light, way) != ("#ffffff", "stroke")  # lines on images
    ]
    rules.insert(0, f"svg{{fill:{DARK['#000000']}}}")  # what names no colour, as black text does not
    style = f"<style>@media screen and (prefers-color-scheme:dark){{{''.join(rules)}}}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda match: match[1] + style, svg, count=1)
