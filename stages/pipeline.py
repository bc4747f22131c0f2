"""The pipeline as dvc.yaml describes it, cell by cell, for what runs it otherwise than DVC. Not a stage itself.

A cell is a stage with one choice of its matrix, under the name that DVC gives it: finetune@digits-pgd-0. Of dvc.yaml's
language this reads what the file there uses: `matrix`, and `${...}` for an item of it or a value of params.yaml.
"""

import itertools
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from turncoat.errors import TurncoatError
from turncoat.reading import read_yaml

FILE = "dvc.yaml"


@dataclass(frozen=True)
class Cell:
    """One stage of one cell.

    Attributes:
        name: DVC's name of it. stage: the part before the @. item: its choice of the matrix.
        command: the program and its arguments. deps, outs: paths, as in dvc.yaml.
        settings: dotted names in data/settings.json of what it reads, which `inputs` writes into a file of its own.
        follows: names of the cells that make what it depends on, in order.
    """

    name: str
    stage: str
    item: Mapping[str, Any]
    command: list[str]
    deps: list[str]
    settings: list[str]
    outs: list[str]
    follows: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.name


def cells(params: Mapping[str, Any], file: Path | str = FILE) -> dict[str, Cell]:
    """The cells that dvc.yaml and the content of params.yaml make, by name; each stands behind those that it follows.

    Raises:
        TurncoatError: dvc.yaml names a value that params.yaml lacks, or cells wait for each other.
    """
    made = [cell for stage, plan in read_yaml(file)["stages"].items() for cell in _expanded(stage, plan, params)]
    makers: dict[str, str] = {}
    within: dict[str, list[str]] = defaultdict(list)  # folder: who makes something in it
    for cell in made:
        for out in cell.outs:
            makers[out] = cell.name
            for above in PurePosixPath(out).parents:
                within[str(above)].append(cell.name)
    for cell in made:
        for dep in cell.deps:
            around = [str(path) for path in (PurePosixPath(dep), *PurePosixPath(dep).parents)]
            for name in [*(makers[path] for path in around if path in makers), *within[dep]]:
                if name not in cell.follows:
                    cell.follows.append(name)
    return _in_order({cell.name: cell for cell in made})


def part(settings: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name.

    Raises:
        TurncoatError: there is none.
    """
    value: Any = settings
    for key in re.findall(r"[^.\[\]]+", name):  # study.seeds[0]: the first of a list
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, Mapping) and key in value:
            value = value[key]
        else:
            raise TurncoatError(
                f"{FILE} names {name}, which params.yaml does not define; `git show HEAD:params.yaml` has the line"
            )
    return value


def _expanded(stage: str, plan: Mapping[str, Any], params: Mapping[str, Any]) -> list[Cell]:
    matrix = {name: _filled(values, params) for name, values in plan.get("matrix", {}).items()}
    made = []
    for choice in itertools.product(*matrix.values()):
        item = dict(zip(matrix, choice, strict=True))
        known = {**params, "item": item}
        command = shlex.split(_filled(plan["cmd"], known))
        made.append(
            Cell(
                name=f"{stage}@{'-'.join(map(str, choice))}" if matrix else stage,
                stage=stage,
                item=item,
                command=[sys.executable if command[0] == "python" else command[0], *command[1:]],
                deps=[_filled(path, known) for path in plan.get("deps", [])],
                settings=[_filled(name, known) for name in plan.get("meta", {}).get("settings", [])],
                outs=[_filled(path, known) for kind in ("outs", "metrics") for path in _paths(plan.get(kind, []))],
            )
        )
    return made


def _paths(outs: list[str | dict[str, Any]]) -> list[str]:
    """The paths of outputs, of which each stands alone or before its options."""
    return [path for out in outs for path in ([out] if isinstance(out, str) else out)]


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    """A value of dvc.yaml with each ${...} replaced; one that stands alone keeps its type."""
    if not isinstance(value, str):
        return value
    if alone := re.fullmatch(r"\$\{([^}]+)\}", value):
        return part(known, alone[1].strip())
    return re.sub(r"\$\{([^}]+)\}", lambda found: str(part(known, found[1].strip())), value)


def _in_order(made: dict[str, Cell]) -> dict[str, Cell]:
    ordered: dict[str, Cell] = {}
    while len(ordered) < len(made):
        ready = [cell for name, cell in made.items() if name not in ordered and ordered.keys() >= set(cell.follows)]
        if not ready:
            raise TurncoatError(f"{FILE}: cells wait for each other: {', '.join(made.keys() - ordered.keys())}")
        ordered |= {cell.name: cell for cell in ready}
    return ordered
