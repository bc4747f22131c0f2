"""params.yaml, read once and checked to the last key.

DVC reads params.yaml as YAML 1.2 and ignores keys it does not know; plain PyYAML reads YAML 1.1, where `1e-3` is a
string and a repeated key silently wins. `read_yaml` reads what DVC reads, adds fractions such as `8/255`, and refuses
repeated keys; the pydantic models below refuse everything else that is not meant.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from turncoat.errors import TurncoatError

Model = TypeVar("Model", bound=BaseModel)

# --------------------------------------------------------------------------------------------------- the YAML loader


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
        raise TurncoatError(f"{path} line {at}: the control character {error.character!r} is not allowed") from error
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise TurncoatError(f"{path}{line}: {error.problem}") from error
    except (RecursionError, ValueError) as error:  # nested without end; a number or a date that is none
        raise TurncoatError(f"{path}: cannot be read as YAML ({error})") from error


# --------------------------------------------------------------------------------------------------------- the models


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


Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="safe as a folder and in a dotted path")]
Auto = Literal["auto"]
Switch = Literal[True, False, "auto"]
Start = Literal["baseline", "scratch"]


class ThreatSettings(Strict):
    """What the adversary may do: change an image by at most `epsilon` in the norm, inside [0, 1]."""

    norm: Literal["linf", "l2", "l1"] = "linf"
    epsilon: float = Field(gt=0, description="radius; images lie in [0, 1], so at most 1 for linf")

    @model_validator(mode="after")
    def _inside_the_cube(self) -> Self:
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(f"epsilon must lie in (0, 1] for linf, got {self.epsilon:g}; pixels are in [0, 1]")
        return self


class DataSettings(Strict):
    """Where images come from and how they are split; None takes all that remain (test: the official test set)."""

    source: Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "imagenette"]
    train: int | None = Field(None, gt=0)
    validation: int = Field(gt=0)
    test: int | None = Field(None, gt=0)
    split_seed: int = Field(0, ge=0)
    image_size: int | None = Field(None, ge=8, le=512, description="height and width after resizing (imagenette)")


class TrainingSettings(Strict):
    """One schedule of the training loop, for every method."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(128, gt=1)
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    betas: list[float] = Field([0.9, 0.999], min_length=2, max_length=2, description="of adam")
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["cosine", "step", "cyclic", "constant"] = "cosine"
    milestones: list[float] = Field([0.625, 0.75, 0.833], description="drops of `step`, as fractions of the epochs")
    decay: float = Field(0.1, gt=0, lt=1, description="factor of a drop")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps with a rising rate; the peak of `cyclic`")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the weight average that is deployed; 0: none")
    crop: int = Field(0, ge=0, description="pixels of zero padding for random crops")
    flip: bool = False
    validate_every: int = Field(1, gt=0, description="epochs between looks at validation robustness")


class AttackSettings(Strict):
    """The attack inside training, in units of the data set's epsilon, so that one arm fits every data set."""

    steps: int = Field(10, gt=0)
    epsilon: float = Field(1.0, ge=0, description="radius / threat.epsilon; 0 trains without perturbation")
    step: float = Field(0.25, gt=0, description="step size / threat.epsilon (2/255 at 8/255)")
    start: Literal["uniform", "gaussian", "none"] = "uniform"
    mode: Literal["eval", "train"] = Field(
        "eval", description="batch norm inside the attack; its statistics never move"
    )


class ArmSettings(Strict):
    """What every arm may say; each method adds its paper's settings in a subclass."""

    method: str
    start: Start | None = Field(None, description="the network that training starts from; None: the data set's choice")
    training: dict[str, Any] = Field({}, description="departures from the data set's `finetuning` schedule")

    @property
    def builds_on(self) -> tuple[str, ...]:
        """Names under `pretrained` whose networks the arm needs."""
        return ()


class DatasetSettings(Strict):
    """A data set with its threat model, network and schedules."""

    data: DataSettings
    threat: ThreatSettings
    model: Literal["small_cnn", "resnet18", "wide_resnet28_10", "wide_resnet34_10", "mobilenet_v2", "vgg16"]
    start: Start = "baseline"
    training: TrainingSettings
    finetuning: TrainingSettings


class SuiteSettings(Strict):
    """Named attacks with their settings, and how many test images they meet."""

    images: int | None = Field(None, gt=0, description="the first so many test images; None: all")
    batch_size: Annotated[int, Field(gt=0)] | Auto = Field(500, description="images an attack works on at a time")
    attacks: dict[Slug, dict[str, Any]] = Field(min_length=1, description="name: {attack: function, its settings}")
    epsilons: list[float] = Field([], description="security curve: PGD-20 radii in units of threat.epsilon")
    shifts: list[str] = Field([], description="names of photometric and geometric shifts")
    corruptions: list[str] = Field([], description="names of common corruptions")
    severities: list[Annotated[int, Field(ge=1, le=5)]] = Field([1, 2, 3, 4, 5], min_length=1)
    universal: dict[str, Any] = Field({}, description="form: deepfool or sgd, and its settings; {}: none are made")

    @model_validator(mode="after")
    def _universal_has_a_form(self) -> Self:
        if self.universal and "form" not in self.universal:
            raise ValueError("universal.form is missing: deepfool or sgd")
        return self


class ComputeSettings(Strict):
    """How to compute; `auto` is what measured fastest for the device."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: Switch = "auto"
    compile: Switch = "auto"


class StudySettings(Strict):
    """Which cells there are: every combination of data set, arm and seed, under one suite."""

    datasets: list[str] = Field(min_length=1)
    arms: list[str] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    suite: str
    pretrained: list[str] = Field([], description="what the arms build on besides the baseline, once a seed")

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        for name in ("datasets", "arms", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice: {values}")
        return self


class Settings(Strict):
    """All of params.yaml. Arms stay raw here: their method's settings class knows their keys (`turncoat.methods`)."""

    study: StudySettings
    compute: ComputeSettings = ComputeSettings()
    arms: dict[Slug, dict[str, Any]]
    pretrained: dict[Slug, dict[str, Any]] = {}
    datasets: dict[Slug, DatasetSettings]
    perturbations: dict[Slug, dict[str, Any]]
    universal: dict[Slug, dict[str, Any]] = {}
    suites: dict[Slug, SuiteSettings]

    @model_validator(mode="after")
    def _names_are_defined(self) -> Self:
        for field, names, known in (
            ("study.datasets", self.study.datasets, self.datasets),
            ("study.arms", self.study.arms, self.arms),
            ("study.pretrained", self.study.pretrained, self.pretrained),
            ("study.suite", [self.study.suite], self.suites),
        ):
            for name in names:
                if name not in known:
                    near = difflib.get_close_matches(name, known, n=1)
                    hint = f"did you mean {near[0]}? " if near else ""
                    raise ValueError(f"{field}: {name} is not defined; {hint}There are {', '.join(known)}")
        if taken := {"perturbed", "code", "settings"} & set(self.datasets):
            raise ValueError(f"datasets.{min(taken)}: this name is taken by a folder that the stages make")
        cells: dict[str, tuple[str, str]] = {}
        for cell in ((dataset, arm) for dataset in self.study.datasets for arm in self.study.arms):
            if (other := cells.setdefault("-".join(cell), cell)) != cell:
                both = " and of ".join(f"datasets.{dataset} with arms.{arm}" for dataset, arm in (other, cell))
                raise ValueError(f"the cells of {both} would both be called {'-'.join(cell)}; rename one")
        for suite, plan in self.suites.items():
            for name, attack in plan.attacks.items():
                stored = attack.get("stored")
                if attack.get("attack") == "transfer" and isinstance(stored, str) and stored not in self.perturbations:
                    where = f"suites.{suite}.attacks.{name}.stored"
                    there = ", ".join(self.perturbations) or "none"
                    raise ValueError(f"{where}: {stored} is not made; under perturbations there are {there}")
        if "baseline" in self.arms:
            raise ValueError("arms.baseline: this name is taken by the network that every arm starts from")
        if "pretrained" in self.arms:
            raise ValueError("arms.pretrained: this name is taken by the folder of what arms build on")
        return self


def load(path: Path | str = "params.yaml") -> Settings:
    """Read and check params.yaml.

    Raises:
        TurncoatError: a syntax fault, an unknown or missing key, a value out of range, an undefined name.
    """
    return validate(Settings, read_yaml(path), "", str(path))
