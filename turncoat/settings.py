"""params.yaml and what it is merged with, read once and checked to the last key.

The models below refuse what is not meant; `turncoat.shelves` says what is merged.
"""

import difflib
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from turncoat.data_settings import TASKS, DataSettings
from turncoat.errors import there_are
from turncoat.shelves import merged
from turncoat.strict import Strict, validate
from turncoat.study_settings import StudySettings
from turncoat.tasks import Task
from turncoat.tuning import expanded

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="safe as a folder and in a dotted path")]
Auto = Literal["auto"]
Switch = Literal[True, False, "auto"]
Start = Literal["baseline", "scratch"]


MODELS = (
    "small_cnn",
    "small_resnet",
    "resnet20",
    "resnet56",
    "resnet18",
    "wide_resnet28_10",
    "wide_resnet34_10",
    "mobilenet_v2",
    "vgg16",
)
SEGMENTERS = ("small_segmenter", "lraspp_mobilenet_v3_large", "fcn_resnet50", "deeplabv3_resnet50")
DETECTORS = ("small_detector", "ssdlite320_mobilenet_v3_large", "fcos_resnet50_fpn", "retinanet_resnet50_fpn")
OF_TASK = {"classification": MODELS, "segmentation": SEGMENTERS, "detection": DETECTORS}
# by a library's name, or a factory of one's own, in a file or a module
FOREIGN = re.compile(r"(timm|torchvision)/[\w.-]+|[^\n]+\.py:\w+|[\w./-]*\w:\w+")


class ThreatSettings(Strict):
    """What the adversary may do: change an image by at most `epsilon` in the norm, inside [0, 1]."""

    norm: Literal["linf", "l2", "l1"] = "linf"
    epsilon: float = Field(gt=0, description="radius; images lie in [0, 1], so at most 1 for linf")

    @model_validator(mode="after")
    def _inside_the_cube(self) -> Self:
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(f"epsilon must lie in (0, 1] for linf, got {self.epsilon:g}; pixels are in [0, 1]")
        return self


# Keys of earlier versions for a radius and a step size: `epsilon` is in pixels of [0, 1], these are shares of it.
SHARES = {
    "epsilon": "radius now, in units of the data set's epsilon",
    "step": "relative_step now, in units of the data set's epsilon",
}


class TrainingSettings(Strict):
    """One schedule of the training loop, for every method."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(128, gt=1)
    steps: int | None = Field(None, gt=0, description="batches an epoch, drawn anew each time; None: all of the split")
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

    renamed: ClassVar = SHARES

    steps: int = Field(10, gt=0)
    radius: float = Field(1.0, ge=0, description="radius / threat.epsilon; 0 trains without perturbation")
    relative_step: float = Field(0.25, gt=0, description="step size / threat.epsilon (2/255 at 8/255)")
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


class NormalisationSettings(Strict):
    """What a network does to an image first: subtract the mean, divide by the deviation, per channel, in [0, 1]."""

    mean: list[float] = Field(min_length=1)
    std: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _as_many_as_channels(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels, std has {len(self.std)}")
        return self


class BaselineSettings(Strict):
    """A baseline that is given instead of trained: weights that somebody else trained (docs/networks.md)."""

    weights: str = Field(min_length=1, description="a state dict or safetensors; where it is looked for: docs")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="of the file; another one is refused")
    normalisation: NormalisationSettings | Literal["data", "library", "none"] | None = Field(
        None, description="what the weights were trained behind; None: what the file or the library says"
    )


class DatasetSettings(Strict):
    """A data set with its threat model, network and schedules."""

    task: Task = "classification"
    data: DataSettings
    threat: ThreatSettings
    model: str = Field(
        description="one of the task's, timm/<name>, torchvision/<name>, or a factory: package.module:name"
    )
    model_args: dict[str, Any] = Field({}, description="keywords for timm, torchvision or the factory")
    baseline: BaselineSettings | None = Field(None, description="None: it is trained by `training`")
    start: Start = "baseline"
    training: TrainingSettings
    finetuning: TrainingSettings

    @field_validator("model")
    @classmethod
    def _a_network(cls, name: str, info: ValidationInfo) -> str:
        task = info.data.get("task", "classification")
        known = OF_TASK[task]
        if name not in known and not (task == "classification" and FOREIGN.fullmatch(name)):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? There are" if near else "there are"
            kind = "" if task == "classification" else f" for {task}"
            raise ValueError(f"{name!r} is not defined{kind}; {hint} {', '.join(known)}; or see docs/networks.md")
        return name

    @model_validator(mode="after")
    def _arguments_have_a_taker(self) -> Self:
        if self.model_args and self.model in (*MODELS, "small_segmenter", "small_detector"):
            raise ValueError(f"model_args: {self.model} takes none; they go to timm, torchvision or a factory")
        return self

    @model_validator(mode="after")
    def _data_and_task_go_together(self) -> Self:
        there = TASKS.get(self.data.source, ("classification",))
        if self.task not in there:
            raise ValueError(f"task: source {self.data.source} is for {' or '.join(there)} (got {self.task!r})")
        if self.task != "classification" and self.baseline:
            raise ValueError(f"baseline: given weights are for classification; for {self.task} it is trained here")
        return self


class SuiteSettings(Strict):
    """Named attacks with their settings, and how many test images they meet."""

    renamed: ClassVar = {"epsilons": "radii now, in units of the threat's epsilon"}

    images: int | None = Field(None, gt=0, description="the first so many test images; None: all")
    batch_size: Annotated[int, Field(gt=0)] | Auto = Field(500, description="images an attack works on at a time")
    attacks: dict[Slug, dict[str, Any]] = Field(min_length=1, description="name: {attack: function, its settings}")
    radii: list[float] = Field([], description="security curve: of PGD-20, in units of threat.epsilon")
    shifts: list[str] = Field([], description="names of photometric and geometric shifts")
    corruptions: list[str] = Field([], description="names of common corruptions")
    severities: list[Annotated[int, Field(ge=1, le=5)]] = Field([1, 2, 3, 4, 5], min_length=1)
    universal: dict[str, Any] = Field({}, description="form: deepfool or sgd, and its settings; {}: none are made")
    audit: int = Field(100, ge=0, description="standing images that meet AutoAttack in full, where the suite lacks it")

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
    processes: int = Field(1, gt=0, description="that share each cell, data-parallel (docs/cluster.md)")


class Settings(Strict):
    """All settings. Arms stay raw here: their method's settings class knows their keys (`turncoat.papers.arms`)."""

    study: StudySettings
    compute: ComputeSettings = ComputeSettings()
    arms: dict[Slug, dict[str, Any]]
    pretrained: dict[Slug, dict[str, Any]] = {}
    datasets: dict[Slug, DatasetSettings]
    perturbations: dict[Slug, dict[str, Any]]
    universal: dict[Slug, dict[str, Any]] = {}
    suites: dict[Slug, SuiteSettings]
    _says: dict[str, str] = PrivateAttr(default_factory=dict)
    _files: dict[tuple[str, str], str] = PrivateAttr(default_factory=dict)

    @property
    def says(self) -> dict[str, str]:
        """What an arm is, in a sentence, where a file says so. No result rests on it."""
        return self._says

    @property
    def own_files(self) -> bool:
        """Whether the study rests on files outside the repository: images, weights, a factory, records beside it.

        DVC sees them through data/settings.json alone, which the stage `inputs` must then make anew.
        """
        plans = [self.datasets[name] for name in self.study.every]
        return bool(self.study.beside) or any(plan.data.path or plan.baseline or ":" in plan.model for plan in plans)

    def file(self, section: str, name: str) -> str:
        """Where the entry stands: params.yaml, or one of the files that it is merged with."""
        return self._files.get((section, name), "params.yaml")

    @field_validator("arms", mode="before")
    @classmethod
    def _tuned_arms_in_full(cls, arms: Any) -> Any:
        return expanded(arms) if isinstance(arms, dict) else arms

    @model_validator(mode="after")
    def _names_are_defined(self) -> Self:
        for field, names, known in (
            ("study.datasets", self.study.datasets, self.datasets),
            ("study.arms", self.study.arms, self.arms),
            ("study.pretrained", self.study.pretrained, self.pretrained),
            ("study.suite", [self.study.suite], self.suites),
            ("study.dense.datasets", self.study.dense.datasets, self.datasets),
            ("study.dense.arms", self.study.dense.arms, self.arms),
            ("study.dense.suite", [self.study.dense.suite] * bool(self.study.dense.datasets), self.suites),
        ):
            for name in names:
                if name not in known:
                    raise ValueError(f"{field}: {name} is not defined; {there_are(name, known)}")
        for name in self.study.every:
            places = ["study.datasets", "study.dense.datasets"]
            if (named_there := name in self.study.dense.datasets) != (self.datasets[name].task != "classification"):
                wrong_place, place = places[named_there], places[not named_there]
                raise ValueError(f"{wrong_place}: {name} is for {self.datasets[name].task}; name it in {place}")
        if grids := [arm for arm in self.study.dense.arms if "tune" in self.arms[arm]]:
            raise ValueError(f"study.dense.arms: {grids[0]} is tuned, which is for classification alone; take it out")
        tuned = self.study.tuning.arms
        if wrong := [arm for arm in self.study.arms if ("tune" in self.arms[arm]) != (arm in tuned)]:
            other = (
                ("study.arms", "study.tuning.arms") if wrong[0] not in tuned else ("study.tuning.arms", "study.arms")
            )
            grid = "has" if wrong[0] not in tuned else "has no"
            raise ValueError(f"{other[0]}: arms.{wrong[0]} {grid} grid under `tune`; name it in {other[1]}")
        if taken := {"perturbed", "code", "settings"} & set(self.datasets):
            raise ValueError(f"datasets.{min(taken)}: this name is taken by a folder that the stages make")
        cells: dict[str, tuple[str, str]] = {}
        for cell in ((dataset, arm) for dataset in self.study.every for arm in self.study.arms_on(dataset)):
            if (first := cells.setdefault("-".join(cell), cell)) != cell:
                both = " and of ".join(f"datasets.{dataset} with arms.{arm}" for dataset, arm in (first, cell))
                raise ValueError(f"the cells of {both} would both be called {'-'.join(cell)}; rename one")
        suite = self.study.suite
        for name, attack in self.suites[suite].attacks.items():
            stored = attack.get("stored")
            if attack.get("attack") == "transfer" and isinstance(stored, str) and stored not in self.perturbations:
                where = f"suites.{suite}.attacks.{name}.stored"
                there = ", ".join(self.perturbations) or "none"
                raise ValueError(f"{where}: {stored} is not made; under perturbations there are {there}")
        for name in (PurePosixPath(folder).name for folder in self.study.beside):
            if name in self.arms:
                raise ValueError(f"study.beside: arms.{name} has the name of this folder; rename the folder")
        if "baseline" in self.arms:
            raise ValueError("arms.baseline: this name is taken by the network that every arm starts from")
        if "pretrained" in self.arms:
            raise ValueError("arms.pretrained: this name is taken by the folder of what arms build on")
        return self


def load(path: Path | str = "params.yaml") -> Settings:
    """Read and check params.yaml, merged with the papers' arms and the other shelves.

    Raises:
        TurncoatError: a syntax fault, an unknown or missing key, a value out of range, an undefined name.
    """
    return made(*merged(path), path)


def made(values: dict[str, Any], says: dict[str, str], files: dict[tuple[str, str], str], path: Path | str) -> Settings:
    """The settings out of values read already (`shelves.Merged`); raises as `load`."""
    settings = validate(Settings, values, "", str(path))
    settings._says, settings._files = says, files
    return settings
