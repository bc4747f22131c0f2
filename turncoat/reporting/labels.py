"""Names beside what they name: at the right of the axes, with a thin line to the point, and none over another."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 5.8  # points
LINE = 1.2 * SIZE / 72  # inches that a name takes
LEADER = {"arrowstyle": "-", "linewidth": 0.5, "linestyle": ":", "shrinkA": 0, "shrinkB": 2}
ABOUT = 0.62  # of a panel's height the axes have, the rest being title, ticks and labels


def needed(names: int) -> float:
    """Inches of axes that so many names need, one below the other."""
    return names * LINE


def beside(axes: "Axes", ends: Mapping[str, tuple[float, float, str]], height: float) -> None:
    """Name each point (x, y, colour) of the axes, whose limits are set, in a column at their right.

    Args:
        height: inches of the panel, of which the axes are about two thirds.
    """
    low, high = axes.get_ylim()
    reach = high - low or 1.0
    wanted = {name: min(max((y - low) / reach, 0), 1) for name, (_, y, _) in ends.items()}
    inside = max(ABOUT * height, needed(len(ends)))
    order = sorted(wanted, key=lambda name: wanted[name])
    places = spread([wanted[name] for name in order], LINE / inside)
    for name, place in zip(order, places, strict=True):
        x, y, colour = ends[name]
        axes.annotate(
            name,
            (x, y),
            (1.03, place),
            textcoords="axes fraction",
            fontsize=SIZE,
            va="center",
            annotation_clip=False,
            arrowprops={"relpos": (0, 0.5), "color": colour} | LEADER,
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Rising places in [0, 1] at least `gap` apart, as near to the wanted ones (rising) as least squares has it.

    Where so many do not fit, they share the room evenly. Solved by pooling neighbours that are in each other's way.
    """
    if not wanted:
        return []
    gap = min(gap, 1 / max(len(wanted) - 1, 1))
    pools: list[tuple[float, int]] = []  # sum and number of wanted places, each less the gaps below it
    for place, value in enumerate(wanted):
        pools.append((value - place * gap, 1))
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1] = (pools[-1][0] + total, pools[-1][1] + count)
    top = 1 - (len(wanted) - 1) * gap
    flat = [min(max(total / count, 0), top) for total, count in pools for _ in range(count)]
    return [value + place * gap for place, value in enumerate(flat)]
