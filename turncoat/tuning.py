"""Grids: an arm compared at its own best setting instead of its paper's, which was the best elsewhere.

    trades-tuned: {tune: {beta: [0.5, 1, 2, 4, 6]}}      the arm trades, beta settled on the validation split

An arm named X-tuned is the arm X but for what `tune` lists: settings, nested ones with dots, each with its values.
Every arm of a study gets as many trials, whatever it tunes: who may try more often finds more (Dodge et al., EMNLP
2019). A grid with more points than that is met at random (Bergstra and Bengio, JMLR 2012), the given point among them.
The measure is the one by which the method chooses its checkpoint, or `tune_by: clean` or `robust`.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from turncoat.errors import TurncoatError

SUFFIX = "-tuned"
KEYS = ("tune", "tune_by")  # of a tuned arm: no settings of its method
Values = dict[str, Any]  # dotted name of a setting -> its value
Grid = Mapping[str, Sequence[Any]]


def expanded(arms: Mapping[str, Any]) -> dict[str, Any]:
    """All arms with each tuned one in full: what it says itself, and else what its namesake says.

    One without its namesake is left out: a paper's file tunes arms of params.yaml, which another file may not have.

    Raises:
        ValueError: a grid under another name than X-tuned, or such a name without grid.
    """
    found = dict(arms)
    for name, entry in arms.items():
        if not isinstance(entry, dict):
            continue
        if name.endswith(SUFFIX) != ("tune" in entry):
            raise ValueError(f"arms.{name}: an arm with a grid under `tune` is named ...{SUFFIX}, and no other is")
        if "tune" in entry and "method" not in entry:
            given = arms.get(untuned(name))
            if isinstance(given, dict):
                found[name] = given | entry
            else:
                del found[name]
    return found


def untuned(name: str) -> str:
    """The arm that a tuned one is but for its grid."""
    return name.removesuffix(SUFFIX)


def taken(settings: Mapping[str, Any], names: Sequence[str] | Grid, where: str) -> Values:
    """The values at dotted names.

    Raises:
        TurncoatError: there is no such setting.
    """
    found: Values = {}
    for name in names:
        value: Any = settings
        for key in name.split("."):
            if not isinstance(value, Mapping) or key not in value:
                there = ", ".join(value) if isinstance(value, Mapping) else "nothing below it"
                raise TurncoatError(f"{where}.{name}: no setting of this arm; there are {there}")
            value = value[key]
        found[name] = value
    return found


def put(arm: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """The raw settings of an arm at one point of its grid."""
    made = {key: value for key, value in arm.items() if key not in KEYS}
    for name, value in values.items():
        inner = made
        *above, last = name.split(".")
        for key in above:
            inner[key] = dict(inner.get(key) or {})
            inner = inner[key]
        inner[last] = value
    return made


def points(grid: Grid, own: Values, trials: int, where: str) -> list[Values]:
    """The points of the grid that are tried, `trials` in number, the first value of the last setting first.

    Where the grid has more: the arm's given point, and others in the order of their checksums, which stays as it is
    when values are added.

    Args:
        own: the given point. where: the grid's place in the settings, for messages.

    Raises:
        TurncoatError: no list of different values, fewer points than trials, or the given point is not among them.
    """
    if not grid:
        raise TurncoatError(f"{where}: settings are wanted, each with a list of values, such as beta: [1, 2, 5]")
    for name, values in grid.items():
        if not isinstance(values, list) or not values or any(value in values[:at] for at, value in enumerate(values)):
            raise TurncoatError(f"{where}.{name}: a list of different values is wanted (got {values!r})")
        if own[name] not in values:
            raise TurncoatError(f"{where}.{name}: lacks {own[name]!r}, the given value; add it to {values}")
    every = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    if len(every) < trials:
        raise TurncoatError(
            f"{where}: has {len(every)} points, where study.tuning has {trials} trials: give each side of a comparison "
            "as many"
        )
    if len(every) == trials:
        return every
    others = sorted((point for point in every if point != own), key=_checksum)
    return [own, *others[: trials - 1]]


def _checksum(point: Values) -> str:
    plain = {name: float(value) if isinstance(value, int) else value for name, value in point.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def choose(tried: Sequence[tuple[Values, float | None]], grid: Grid, own: Values) -> Values:
    """The point of the highest value; of equals the one nearest to the given point, by places in the grid's lists.

    Args:
        tried: each point with its mean on the validation split, a share in [0, 1]; None: training failed there.

    Raises:
        TurncoatError: training failed at every point.
    """
    known = [(point, round(value, 12)) for point, value in tried if value is not None]
    if not known:
        raise TurncoatError("no trial came to an end: every point of the grid made the loss infinite or no number")

    def apart(point: Values) -> int:
        return sum(abs(list(grid[name]).index(point[name]) - list(grid[name]).index(own[name])) for name in grid)

    # the first of equals by the order of the trials, so that nothing is left to chance
    return min(known, key=lambda pair: (-pair[1], apart(pair[0])))[0]
