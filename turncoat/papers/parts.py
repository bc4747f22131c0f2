"""A paper's modules, and where each method stands: imported here by a name that is put together, and nowhere else."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Literal

from turncoat.errors import TurncoatError
from turncoat.methods import METHODS
from turncoat.papers import PAPERS

FOLDER = Path(__file__).parent
Part = Literal["analysis", "figures", "tables"]


def part(paper: str, name: Part) -> ModuleType | None:
    """The module `turncoat.papers.<paper>.<name>`; None where the paper has no such module."""
    module = f"{__package__}.{paper}.{name}"
    return importlib.import_module(module) if importlib.util.find_spec(module) else None


def methods(paper: str) -> dict[str, str]:
    """The paper's own methods: name -> `module:Class`; none of these modules is imported."""
    found: dict[str, str] = getattr(importlib.import_module(f"{__package__}.{paper}"), "METHODS", {})
    return found


def known() -> dict[str, str]:
    """Every method: name -> `module:Class`, the comparators' first.

    Raises:
        TurncoatError: two folders have a method of the same name.
    """
    found = dict(METHODS)
    for paper in PAPERS:
        for name, place in methods(paper).items():
            if name in found:
                raise TurncoatError(f"turncoat/papers/{paper}: METHODS: {name} is also {found[name]}")
            found[name] = place
    return found


def module_of(method: str) -> str:
    """The dotted name of the module that the method stands in.

    Raises:
        TurncoatError: there is no such method.
    """
    places = known()
    if method not in places:
        raise TurncoatError(f"{method!r} is not defined; there are {', '.join(places)}")
    return places[method].split(":")[0]
