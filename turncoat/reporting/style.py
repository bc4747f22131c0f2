"""One colour, marker and line an arm, the same in every figure; and figures saved byte for byte alike.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers, with grey for their yellow (too faint on
white) and four of Tol's muted ones, so that each arm of the default study has its own. Marker and dash are a second
channel: for print in grey, and for more arms than there are colours.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from turncoat.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OKABE_ITO = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C564B")
TOL = ("#882255", "#332288", "#999933", "#AA4499", "#6699CC", "#661100", "#44AA99", "#B8860B")
COLOURS = OKABE_ITO + TOL
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")  # as many as share no factor with the colours
DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))

COLUMN = 3.4  # inches: one column of a paper
WIDE = 5.6  # inches: of small multiples, and of words beside an axis
FORMATS = ("pdf", "svg", "png")
SHORT = 4  # letters of a class name below a small picture
WORD = 8  # letters below a larger one
LEGEND = (6.2, 5.6)  # points: the usual size, and one for long names
ROW = 0.125  # inches a legend's row takes
GREY = "#555555"  # of what is no arm's: rules, keys, markers in legends
FAINT = "#c4c4c4"  # of arms that a panel is not about
ON_LIGHT, ON_DARK = "#010101", "#fefefe"  # text on a shade, whatever the page behind it: see `dark`

Picture: TypeAlias = "tuple[Figure, str] | None"  # with the words that stand for it


@dataclass(frozen=True)
class Look:
    """How one arm is drawn."""

    colour: str
    marker: str
    dash: Any

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dash, "markeredgewidth": 0}

    @property
    def point(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` for markers without a line between them."""
        return self.line | {"linestyle": "none"}

    @property
    def bars(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.errorbar`: the same markers, with thin bars."""
        return self.point | {"elinewidth": 0.6}


def looks(arms: Sequence[str], others: Iterable[str] = ()) -> dict[str, Look]:
    """The look of every arm by its place in the study, then of the `others` that params.yaml defines.

    An arm added at the end moves none. The first sixteen differ in colour, 176 in colour and marker.
    """

    def look(place: int) -> Look:
        return Look(*(channel[place % len(channel)] for channel in (COLOURS, MARKERS, DASHES)))

    return {arm: look(place) for place, arm in enumerate(dict.fromkeys([*arms, *others]))}


@contextmanager
def paper() -> Iterator[None]:
    """The study's matplotlib style, drawn without a screen and without the time of day."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    import matplotlib as mpl
    from matplotlib import style

    mpl.use("Agg")
    with mpl.rc_context(), style.context(["default", Path(__file__).parent / "paper.mplstyle"]):
        yield


def shades(
    grid: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    marks: Mapping[tuple[int, int], str] = MappingProxyType({}),
) -> "tuple[Figure, Axes]":
    """A table of percentages as shades with the numbers in it, one column of a paper wide; None is not measured.

    Args:
        marks: (row, column) -> what stands behind the number.
    """
    from matplotlib import pyplot as plt

    values = np.array([[np.nan if value is None else value for value in row] for row in grid], dtype=float)
    slanted = max(map(len, columns)) > 2
    figure, axes = plt.subplots(figsize=(COLUMN, (0.75 if slanted else 0.5) + 0.17 * len(rows)))
    axes.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        known = not np.isnan(value)
        axes.text(
            column,
            row,
            f"{value:.1f}{marks.get((row, column), '')}" if known else "–",
            ha="center",
            va="center",
            color="black" if not known else ON_DARK if value < 55 else ON_LIGHT,  # where cividis turns light
            fontsize=6.2 if len(columns) < 9 else 5.2,
        )
    turn: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(columns)), list(columns), **turn)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def by_class(table: Mapping[str, Mapping[str, float]], label: str) -> "Figure":
    """{row: {column: percent}} as shades, every row with the columns of the first."""
    figure, axes = shades([list(row.values()) for row in table.values()], list(table), list(next(iter(table.values()))))
    axes.set(xlabel=label)
    return figure


def lowest(values: Mapping[str, float]) -> str:
    """The names that share the lowest value, as it is printed, and the value: "3, 8 (0.0)"."""
    printed = {name: f"{value:.1f}" for name, value in values.items()}
    least = min(printed.values(), key=float)
    return f"{', '.join(name for name, text in printed.items() if text == least)} ({least})"


def joined(look: Mapping[str, Any], points: Sequence[Any]) -> dict[str, Any]:
    """The look of a line; of two points or fewer, markers alone: a line would tell of what lies between."""
    return dict(look) if len(points) > 2 else dict(look) | {"linestyle": "none", "marker": look.get("marker") or "."}


def parted(axes: "Axes", groups: Mapping[str, int]) -> None:
    """Rule off groups of rows, so many rows each, and name each group at the right end of its first row."""
    first = 0
    for name, count in groups.items():
        if first:
            axes.axhline(first - 0.5, color=GREY, linewidth=0.4)
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
        axes.annotate(name, (1.02, first), fontsize=6, fontweight="bold", **where)
        first += count


def canvas(height: float, arms: int = 0) -> "tuple[Figure, Axes]":
    """A figure one column wide, `height` inches high, with room below the axes for a legend of so many arms."""
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(COLUMN, height + legend_height(arms)))


def rows(names: Sequence[str], width: float = COLUMN) -> "tuple[Figure, Axes]":
    """A figure with one named row each, the first on top; a name may take several lines."""
    from matplotlib import pyplot as plt

    lines = max(1.0, *(1 + 0.6 * name.count("\n") for name in names)) if names else 1.0
    figure, axes = plt.subplots(figsize=(width, 0.95 + 0.19 * lines * len(names)))
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    return figure, axes


def legend_height(arms: int) -> float:
    """Inches that a legend of so many arms takes."""
    return ROW * -(-arms // 3)


def legend(figure: "Figure", axes: "Axes", columns: int = 3) -> None:
    """The legend of `axes` below the whole figure, in as many columns as its names leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    most = min(columns, len(labels))
    for count, size in ((count, size) for count in range(most, 0, -1) for size in LEGEND):
        drawn = figure.legend(handles, labels, loc="outside lower center", ncols=count, fontsize=size)
        if drawn.get_window_extent().width <= figure.bbox.width:
            break
        drawn.remove()
    figure.set_figheight(figure.get_figheight() + ROW * (-(-len(labels) // count) - -(-len(labels) // most)))


def log_axis(axes: "Axes", values: Iterable[float]) -> None:
    """A logarithmic x axis with ticks at the values' own powers of two, when they span a factor of eight."""
    import math

    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    known = list(values)
    low, high = math.floor(math.log2(min(known))), math.ceil(math.log2(max(known)))
    if high - low > 3:
        axes.set_xscale("log", base=2)
        axes.set_xlim(2.0**low, 2.0**high)
        axes.xaxis.set_major_locator(FixedLocator([2.0**power for power in range(low, high + 1)]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())


def short(name: str, letters: int = SHORT) -> str:
    """A class's name below a small picture: the start of its first word."""
    return name.split(" ")[0][:letters]


def picture(axes: "Axes", image: npt.NDArray[np.float32]) -> None:
    """Fill the axes with an image (C, H, W) in [0, 1], grey or in colour, without ticks or frame."""
    clipped = np.clip(image, 0, 1)
    shown = clipped[0] if len(clipped) == 1 else clipped.transpose(1, 2, 0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def magnified(changes: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], str]:
    """Changes of pixels as images, the largest drawn black or white, no change grey; and the factor, as text."""
    largest = float(np.abs(changes).max()) or 1.0
    return 0.5 + changes / (2 * largest), f"{0.5 / largest:.2g}"


def save(figure: "Figure", folder: Path, name: str) -> None:
    """Write the figure as PDF, SVG and PNG, without timestamps or versions that would change the bytes."""
    import io

    blank: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
    }
    if layout := figure.get_layout_engine():  # once for all three formats: it is a quarter of the drawing
        layout.execute(figure)
        figure.set_layout_engine("none")
    for form in FORMATS:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, metadata=blank[form])
        write_atomic(folder / f"{name}.{form}", buffer.getvalue())
