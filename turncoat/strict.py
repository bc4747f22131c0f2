"""YAML read as DVC reads it, and settings that know all their keys: what params.yaml and claims are checked with.

DVC reads params.yaml as YAML 1.2 and ignores keys it does not know; plain PyYAML reads YAML 1.1, where `1e-3` is a
string and a repeated key silently wins. `read_yaml` reads what DVC reads, adds fractions such as `8/255`, and refuses
repeated keys; `Strict` refuses everything else that is not meant.
"""

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from turncoat.errors import TurncoatError

Model = TypeVar("Model", bound=BaseModel)


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
    for key_node, _ in node.value:
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
        with open(path, encoding="utf-8") as file:
            return yaml.load(file, _Loader)
    except OSError as error:
        raise TurncoatError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise TurncoatError(f"{path}{line}: {error.problem}") from error


class Strict(BaseModel):
    """Immutable settings that know all their keys: an unknown one is refused, with the nearest known one named."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(cls.model_fields)}"
                    raise PydanticCustomError("unknown_key", "{key}; {hint}", {"key": key, "hint": hint})
        return value


def validate(model: type[Model], value: Any, where: str, source: str = "params.yaml") -> Model:
    """Validate `value`, which stands at the dotted path `where` of the file `source`.

    Raises:
        TurncoatError: one line a fault, each with the dotted path of the field.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            path = ".".join([where, *(str(part) for part in fault["loc"])]).strip(".")
            if fault["type"] == "unknown_key":
                lines.append(f"{source}: unknown {path}.{fault['msg']}".replace("unknown .", "unknown "))
            else:
                got = "" if fault["type"] in ("missing", "value_error") else f" (got {fault['input']!r})"
                said = fault["msg"].removeprefix("Value error, ") + got
                lines.append(f"{source}: {path}: {said}" if path else f"{source}: {said}")
        raise TurncoatError("\n".join(lines)) from error
