"""record.json, version 1, as typed data: what the evaluation of one cell left behind."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from turncoat.tasks import Task


class _Read(BaseModel):
    """A part of a record: typed, finite; keys that are not needed here are passed over."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Count(_Read):
    """`correct` of `n` trials; for an attack, its cost in passes per image too.

    `images`: how many images the trials are of, where that is not `n`: one image under five shifts is five trials.
    `value`: the measure itself, where it is no share of trials, as mIoU over `n` images; `correct` is near it then.
    """

    correct: NonNegativeInt
    n: PositiveInt
    images: PositiveInt | None = None
    forward: float | None = None
    backward: float | None = None
    value: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _no_more_than_all(self) -> "Count":
        if self.correct > self.n:
            raise ValueError(f"correct ({self.correct}) exceeds n ({self.n})")
        return self

    @property
    def accuracy(self) -> float:
        """Fraction in [0, 1]."""
        return self.correct / self.n if self.value is None else self.value

    @property
    def sample(self) -> tuple[int, int]:
        """The same accuracy as (correct, n) with every image counted once: what an interval may be made of."""
        n = self.images or self.n
        return round(self.accuracy * n), n


class Rung(_Read):
    """One rung of a ladder: `probability` of being right, a mean over all images; `took`: points that it took."""

    steps: PositiveInt
    draws: PositiveInt
    met: NonNegativeInt
    correct: NonNegativeInt
    probability: float
    forward: float
    backward: float
    took: float | None = None


class Attacked(Count):
    """Accuracy under one attack. `met`: images it met, where these were only such as stood; `rungs`: of a ladder."""

    met: NonNegativeInt | None = None
    rungs: list[Rung] = []


class Overstatement(_Read):
    """AutoAttack on `n` standing images, of which `fallen` fell: the worst case is so many points too high (95 %)."""

    n: NonNegativeInt
    fallen: NonNegativeInt
    points: float
    low: float
    high: float


class Worst(Count):
    """Accuracy under the worst case over `attacks`, image by image."""

    attacks: list[str]


class CurvePoint(Count):
    """One radius of the security curve."""

    epsilon: float


class Calibration(_Read):
    """Expected calibration error (a fraction) and the reliability diagram behind it."""

    ece: float
    bins: int
    confidence: list[float]
    accuracy: list[float]
    count: list[int]


class ClassCount(_Read):
    """Of the `n` images of one class, how many are right clean and under the worst case."""

    name: str = Field(alias="class")
    n: NonNegativeInt
    clean: NonNegativeInt
    worst: NonNegativeInt | None = None


class SceneCount(Count):
    """Accuracy under one shift or corruption at one severity."""

    shift: str | None = None
    corruption: str | None = None
    severity: int

    @property
    def name(self) -> str:
        """Its array in examples.npz."""
        return f"{f'shift {self.shift}' if self.shift else f'corruption {self.corruption}'} {self.severity}"


class Universal(_Read):
    """How many of the `n` images of other classes one perturbation sends to `target`."""

    target: str
    reached: NonNegativeInt
    n: PositiveInt


class Checkpoint(_Read):
    """What was measured on one of the two checkpoints; `measures` holds a paper's own accuracies by name.

    Of segmentation and detection `clean` and `attacks` hold mIoU or AP, `measures` the other measures, `by_class` the
    IoU or AP of each class, clean and under each attack.
    """

    clean: Count
    attacks: dict[str, Attacked]
    worst: Worst | None = None
    overstatement: Overstatement | None = None
    unseen: dict[str, Worst] = {}
    curve: list[CurvePoint] = []
    calibration: Calibration | None = None
    per_class: list[ClassCount] = []
    shifts: list[SceneCount] = []
    corruptions: list[SceneCount] = []
    universal: list[Universal] = []
    measures: dict[str, Count] = {}
    by_class: dict[str, dict[str, float | None]] = {}

    def count(self, metric: str, seen: Collection[str] = ()) -> Count | None:
        """The count behind a metric; None where it was not measured.

        Args:
            metric: clean; worst; an attack or a paper's own measure; `shifts`, `corruptions` over all severities;
                `worst-l2-0.5`, the worst case under that foreign threat;
                `universal`, images of other classes that one perturbation a class does not send to it;
                `shifts-seen` and `shifts-unseen`, those of `seen` and the others.
        """
        if metric == "clean":
            return self.clean
        if metric == "worst":
            return self.worst
        if metric == "universal":
            return _pooled([Count(correct=row.n - row.reached, n=row.n) for row in self.universal])
        named = self.attacks.get(metric) or self.unseen.get(metric) or self.measures.get(metric)
        return named or _pooled(self.pooled(metric, seen))

    def pooled(self, metric: str, seen: Collection[str] = ()) -> list[SceneCount]:
        """The shifts or corruptions that a metric is over, at all severities; none for any other metric."""
        chosen: dict[str, Callable[[SceneCount], bool]] = {
            "shifts": lambda row: row.shift is not None,
            "shifts-seen": lambda row: row.shift is not None and row.shift in seen,
            "shifts-unseen": lambda row: row.shift is not None and row.shift not in seen,
            "corruptions": lambda row: row.corruption is not None,
        }
        return [row for row in [*self.shifts, *self.corruptions] if metric in chosen and chosen[metric](row)]

    @property
    def scenes(self) -> list[str]:
        """Which of the pooled metrics were measured."""
        return [name for name in ("shifts", "corruptions", "universal") if getattr(self, name)]


def _pooled(counts: Sequence[Count]) -> Count | None:
    """All trials as one count. They are of the same images, so that it is their mean."""
    if not counts:
        return None
    images = max(count.n for count in counts)
    return Count(correct=sum(count.correct for count in counts), n=sum(count.n for count in counts), images=images)


class RecordedFlag(_Read):
    """A warning that travels with the numbers. `blocks`: they are no robustness; `attack`: whose number, None for all.

    What a blocking flag does to a verdict is said in verdicts.py.
    """

    name: str
    attack: str | None = None
    detail: str
    blocks: bool


class Passes(_Read):
    """Forward and backward passes per image."""

    forward: float
    backward: float


class TrainingPasses(Passes):
    """Passes per image and epoch; `images` is how many images were seen, every epoch anew: none, if nothing trained."""

    images: NonNegativeInt


class Cost(_Read):
    """What a cell cost, in units that no machine changes."""

    training: TrainingPasses
    evaluation: Passes
    parameters: int


class Trial(_Read):
    """One point of a tuned arm's grid, and its share on validation at each seed of tuning; None: training failed."""

    values: dict[str, Any]
    validation: list[float | None]


class Tuning(_Read):
    """How the settings of a tuned arm were settled. `metric`: clean or robust; passes are of all trials."""

    grid: dict[str, list[Any]]
    own: dict[str, Any]
    metric: str
    seeds: list[int]
    trials: list[Trial]
    chosen: dict[str, Any]
    forward: int
    backward: int


class _Identity(_Read):
    dataset: str
    arm: str
    seed: int


class _Threat(_Read):
    norm: str
    epsilon: float


class Record(_Read):
    """record.json, version 1. `command`: what made it, where no stage of a study did."""

    version: Literal[1] = Field(alias="schema")
    task: Task = "classification"
    cell: _Identity
    method: str
    fingerprint: str
    settings: dict[str, Any]
    threat: _Threat
    classes: list[str]
    best: Checkpoint
    last: Checkpoint
    validation: dict[str, Any]
    flags: list[RecordedFlag]
    cost: Cost
    examples: dict[str, str]
    weights: dict[str, str]
    command: str | None = None
    tuning: Tuning | None = None

    def blocking(self, metric: str) -> list[RecordedFlag]:
        """The blocking flags on a metric: those of that attack alone, and those of all if it is under attack."""
        attack = next((name for name in self.best.attacks if metric.endswith(f"-{name}")), metric)  # ap50-pgd-20
        attacked = attack in ("worst", "universal", *self.best.unseen, *self.best.attacks)
        return [
            flag for flag in self.flags if flag.blocks and (flag.attack == attack or (not flag.attack and attacked))
        ]

    @property
    def seen(self) -> list[str]:
        """The shifts that the arm was trained for."""
        return list(self.settings.get("arm", {}).get("seen", []))
