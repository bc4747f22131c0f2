"""One colour, marker and line an arm, the same in every figure; and figures saved byte for byte alike.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers, with grey for their yellow (too faint on
white). Marker and dash are a second channel: for print in grey, and for more arms than there are colours.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turncoat.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")  # as many as share no factor with the colours
DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))

COLUMN = 3.4  # inches: one column of a paper
FORMATS = ("pdf", "svg", "png")


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


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """The look of every arm, by its place among all arms that params.yaml defines: adding one at the end moves none.

    Colour and marker together are unique for the first 88 arms.
    """
    return {
        arm: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
        for i, arm in enumerate(arms)
    }


@contextmanager
def paper() -> Iterator[None]:
    """The study's matplotlib style, drawn without a screen and without the time of day."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    import matplotlib as mpl
    from matplotlib import style

    mpl.use("Agg")
    with mpl.rc_context(), style.context(["default", Path(__file__).parent / "paper.mplstyle"]):
        yield


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
