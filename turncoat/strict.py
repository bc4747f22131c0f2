"""What all settings are made of: immutable models that know all their keys, and faults told with their place."""

import difflib
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from turncoat.errors import TurncoatError

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Immutable settings that know all their keys: an unknown one is refused, with the nearest known one named.

    Settings within settings, one level down, keep what their default says but for the keys that are given: a
    method's `attack: {steps: 20}` still starts as this method's attack does.

    `renamed` has, for a key of earlier versions, what it is called now and in which unit.
    """

    renamed: ClassVar[dict[str, str]] = {}

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(cls.model_fields)}"
                    if key in cls.renamed:
                        hint = f"it is called {cls.renamed[key]}"
                    raise PydanticCustomError("unknown_key", "{key}; {hint}", {"key": key, "hint": hint})
            nested = {name: field.default for name, field in cls.model_fields.items() if name in value}
            value = value | {
                name: default.model_dump() | value[name]
                for name, default in nested.items()
                if isinstance(default, Strict) and isinstance(value[name], dict)
            }
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
            # pydantic names its own validators among the fields: function-after[...]
            fields = [str(part) for part in fault["loc"] if "[" not in str(part)]
            path = ".".join([where, *fields]).strip(".")
            if fault["type"] == "unknown_key":
                lines.append(f"{source}: unknown {path}.{fault['msg']}".replace("unknown .", "unknown "))
            else:
                got = "" if fault["type"] in ("missing", "value_error") else f" (got {fault['input']!r})"
                said = fault["msg"].removeprefix("Value error, ") + got
                lines.append(f"{source}: {path}: {said}" if path else f"{source}: {said}")
        raise TurncoatError("\n".join(lines)) from error
