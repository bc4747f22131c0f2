"""A paper's modules, found by their names: the only place where they are imported by a name that is put together."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Literal

FOLDER = Path(__file__).parent
Part = Literal["analysis", "figures", "tables", "dense_analysis", "dense_figures"]


def part(paper: str, name: Part) -> ModuleType | None:
    """The module `turncoat.papers.<paper>.<name>`; None where the paper has no such module."""
    module = f"{__package__}.{paper}.{name}"
    return importlib.import_module(module) if importlib.util.find_spec(module) else None


def methods(paper: str) -> dict[str, str]:
    """The paper's own methods: name -> `module:Class`; none of these modules is imported."""
    found: dict[str, str] = getattr(importlib.import_module(f"{__package__}.{paper}"), "METHODS", {})
    return found
