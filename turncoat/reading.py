"""YAML as DVC reads it.

DVC reads params.yaml as YAML 1.2; plain PyYAML reads YAML 1.1, where `1e-3` is a string and a repeated key silently
wins. `read_yaml` reads what DVC reads, adds fractions such as `8/255`, and refuses repeated keys.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from turncoat.errors import TurncoatError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's core scalars, fractions, and unique keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_FRACTION = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)/(\d+\.?\d*|\.\d+)$")
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)$"), "~nN\0"),
    ("tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("tag:yaml.org,2002:int", re.compile(r"[-+]?\d+$|0o[0-7]+$|0x[0-9a-fA-F]+$"), "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"),
        "-+0123456789.",
    ),
    ("!fraction", _FRACTION, "-+0123456789."),
):
    for _character in _first:
        _key = "" if _character == "\0" else _character
        _Loader.yaml_implicit_resolvers.setdefault(_key, []).append((_tag, _pattern))


def _fraction(loader: _Loader, node: yaml.ScalarNode) -> float:
    numerator, denominator = node.value.split("/")
    if float(denominator) == 0:
        raise yaml.constructor.ConstructorError(None, None, f"{node.value}: division by zero", node.start_mark)
    return float(numerator) / float(denominator)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value, 10 if node.value.lstrip("+-").isdigit() else 0)  # `010` is ten in YAML 1.2


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            said = "a key must be one word, not a mapping or a list"
            if isinstance(key_node, yaml.MappingNode) and isinstance(value_node, yaml.ScalarNode):
                said += "; is `{{...}}` a template that was not filled in?"
            raise yaml.constructor.ConstructorError(None, None, said, key_node.start_mark)
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("!fraction", _fraction)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_yaml(path: Path | str) -> Any:
    """Read a YAML file as DVC does; `8/255` is a number. Any fault is a `TurncoatError` with file and line."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise TurncoatError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = raw[: error.start].count(b"\n") + 1
        raise TurncoatError(f"{path} line {at}: byte {raw[error.start]:#04x} is not UTF-8; save it as UTF-8") from error
    try:
        return yaml.load(text, _Loader)
    except yaml.reader.ReaderError as error:
        at = text[: error.position].count("\n") + 1
        code = ord(error.character) if isinstance(error.character, str) else error.character
        raise TurncoatError(f"{path} line {at}: the control character {code:#04x} is not allowed") from error
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise TurncoatError(f"{path}{line}: {error.problem}") from error
    except (RecursionError, ValueError) as error:  # nested without end; a number or a date that is none
        raise TurncoatError(f"{path}: cannot be read as YAML ({error})") from error
