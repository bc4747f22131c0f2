"""What code rests on: the files behind a module's imports, found in the source, and checksums of what they say.

    closure(["stages.finetune", "turncoat.methods.pgd"])   # all files of this repository that the two build on
    checksums(closure(["stages.finetune"]))                 # {"stages/finetune.py": ..., ...}

Nothing is imported for it. What a program imports by a name that it computes is not found: its caller names it. The
checksum of Python code is of its syntax tree: comments, docstrings, layout and the version of Python do not count.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from turncoat.errors import TurncoatError

ROOT = Path(__file__).resolve().parents[1]
OWN = ("turncoat", "stages")
APART = "turncoat.tracking"  # it is told of results, and none rests on it
LISTS = ("turncoat/papers/__init__.py",)  # names alone: one more changes nothing for what the others name
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def closure(modules: Iterable[str], root: Path = ROOT) -> set[Path]:
    """Files of the modules and of all that they import out of the repository's own packages, below `root`.

    An import counts wherever it stands, inside a function too, but not under `if TYPE_CHECKING`. With a module count
    the `__init__.py` of the packages around it. One that merely gathers names of its modules leads only to the modules
    whose names are taken from it. The package `turncoat.tracking` and mere lists of names are left out.

    Raises:
        TurncoatError: one of `modules` is not there, or a file is no Python.
    """
    files: set[Path] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(module, "") for module in modules]
    for module, _ in waiting:
        if not _found(module, root):
            raise TurncoatError(f"{module}: no module of this repository ({root})")
    while waiting:
        module, name = wanted = waiting.pop()
        found = _found(module, root)
        if wanted in seen or not found or f"{module}.".startswith(f"{APART}."):
            continue
        seen.add(wanted)
        files.update(file for _, file in found)
        waiting += [(package, "") for package, file in found[:-1] if not _gathers(file)]
        file = found[-1][1]
        if name and _found(f"{module}.{name}", root):
            waiting.append((f"{module}.{name}", ""))
        else:
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            chosen = name if _gathers(file) else ""
            waiting += [
                (source, taken)
                for source, taken, bound in _imports(file, package, *_edition(file))
                if chosen in ("", bound)
            ]
    return files - {root / file for file in LISTS}


def checksums(files: Iterable[Path], root: Path = ROOT) -> dict[str, str]:
    """Path below `root`, with slashes, in order: hex SHA-256 of what the file says.

    Of Python without comments, docstrings and layout; of YAML without comments and layout; of other files the bytes.
    """
    return {path.relative_to(root).as_posix(): _checksum(path) for path in sorted(files)}


def code_checksum(modules: Iterable[str], root: Path = ROOT) -> str:
    """Hex SHA-256 over the closure of some modules: another one where the code behind them was changed."""
    return hashlib.sha256(json.dumps(checksums(closure(modules, root), root)).encode()).hexdigest()


@cache
def _found(name: str, root: Path) -> list[tuple[str, Path]]:
    """The packages around a module and the module itself, outermost first, each with its file; [] if it is none."""
    parts = name.split(".")
    found: list[tuple[str, Path]] = []
    if parts[0] not in OWN:
        return []
    for end in range(1, len(parts) + 1):
        path = root.joinpath(*parts[:end])
        file = next(
            (file for file in (path / "__init__.py", path.with_name(f"{path.name}.py")) if file.is_file()), None
        )
        if file is None:
            return []
        found.append((".".join(parts[:end]), file))
    return found


def _gathers(file: Path) -> bool:
    """Whether a package's file holds nothing but imports and `__all__`."""
    return file.name == "__init__.py" and all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"])
        for node in _parsed(file, *_edition(file)).body
    )


@cache
def _imports(file: Path, package: str, *edition: int) -> list[tuple[str, str, str]]:
    """What a file of `package` imports: (module, the name taken from it or "" for all, the name that it gets here)."""
    found = []
    for node in _statements(_parsed(file, *edition).body):
        if isinstance(node, ast.Import):
            found += [(alias.name, "", alias.asname or alias.name.partition(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            around = package.split(".")
            above = around[: len(around) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [("" if alias.name == "*" else alias.name, alias.asname or alias.name) for alias in node.names]
            found += [(module, taken, bound) for taken, bound in names]
    return found


def _statements(body: list[Any]) -> Iterator[ast.AST]:
    """Every statement in `body`, nested ones too, but for those that only a type checker reads."""
    for node in body:
        yield node
        test = getattr(node, "test", None)
        typed = "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            nested = getattr(node, field, None)
            if isinstance(nested, list) and not (typed and field == "body"):
                yield from _statements(nested)


def _edition(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_mtime_ns, about.st_size


@cache
def _parsed(file: Path, *edition: int) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise TurncoatError(f"{file}: line {error.lineno}: {error.msg}") from error


def _checksum(file: Path) -> str:
    return _digest(file, *_edition(file))


@cache
def _digest(file: Path, *edition: int) -> str:
    match file.suffix:
        case ".py":
            parts: list[str] = []
            _spell(_parsed(file, *edition), parts)
            content = "\0".join(parts).encode()
        case ".yaml":
            content = json.dumps(yaml.load(file.read_text(), yaml.BaseLoader)).encode()
        case _:
            content = file.read_bytes()
    return hashlib.sha256(content).hexdigest()


def _spell(value: Any, parts: list[str]) -> None:
    """Spell out a syntax tree without positions and docstrings.

    Empty fields are passed over: newer versions of Python have more of them, and a study is the same under all.
    """
    if isinstance(value, ast.AST):
        parts.append(type(value).__name__)
        for field, inner in ast.iter_fields(value):
            if field == "body" and isinstance(value, DOCUMENTED) and ast.get_docstring(value, clean=False) is not None:
                inner = inner[1:]
            if inner is not None and inner != [] and field not in ("kind", "ctx"):
                parts.append(f".{field}")
                _spell(inner, parts)
        parts.append(")")
    elif isinstance(value, list):
        for item in value:
            _spell(item, parts)
        parts.append("]")
    else:
        parts.append(repr(value))
