"""`study` in params.yaml: which cells there are, and which arms are tuned first."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from turncoat.strict import Strict


class TuningSettings(Strict):
    """Which arms have the grid under their `tune` settled on the validation split, and how (docs/tuning.md)."""

    arms: list[str] = []
    trials: list[int] = Field([0, 1, 2, 3, 4], description="numbers from 0: points of the grid that each arm gets")
    seeds: list[Annotated[int, Field(ge=0)]] = Field([100], min_length=1, description="of the trials alone")

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if self.trials != list(range(len(self.trials))) or len(self.trials) < 2:
            raise ValueError(f"trials: 0, 1 and so on are wanted, two or more, got {self.trials}")
        for name, values in (("arms", self.arms), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice: {values}")
        return self


class DenseSettings(Strict):
    """The cells of segmentation and detection: a second matrix, for few arms have anything to do there."""

    datasets: list[str] = []
    arms: list[str] = []
    suite: str = "dense"

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if bool(self.datasets) != bool(self.arms):
            lacking = "arms" if self.datasets else "datasets"
            raise ValueError(f"{lacking}: none is named; name some, or leave both lists empty")
        for name in ("datasets", "arms"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice: {values}")
        return self


class StudySettings(Strict):
    """Which cells there are: every combination of data set, arm and seed, under one suite.

    `arms` holds those of `tuning` too, as the last, once it is read.
    """

    datasets: list[str] = Field(description="of classification; none, where `dense` has some")
    arms: list[str]
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    suite: str
    pretrained: list[str] = Field([], description="what the arms build on besides the baseline, once a seed")
    beside: list[str] = Field([], description="folders of `turncoat.evaluation --record`, shown with the arms")
    tuning: TuningSettings = TuningSettings()
    dense: DenseSettings = DenseSettings()

    @property
    def every(self) -> list[str]:
        """The data sets of all tasks."""
        return [*self.datasets, *self.dense.datasets]

    @property
    def every_arm(self) -> list[str]:
        """The arms of all tasks, each once."""
        return list(dict.fromkeys([*self.arms, *self.dense.arms]))

    def arms_on(self, dataset: str) -> list[str]:
        """The arms of a data set's cells."""
        return self.dense.arms if dataset in self.dense.datasets else self.arms

    @model_validator(mode="before")
    @classmethod
    def _tuned_arms_are_arms(cls, value: Any) -> Any:
        tuning = value.get("tuning") if isinstance(value, dict) else None
        lists = (value.get("arms"), tuning.get("arms")) if isinstance(tuning, dict) else (None, None)
        if not isinstance(lists[0], list) or not isinstance(lists[1], list):
            return value
        if both := [name for name in lists[1] if name in lists[0]]:
            raise ValueError(f"arms: {both[0]} stands under tuning.arms already; take it out here")
        return value | {"arms": [*lists[0], *lists[1]]}

    @model_validator(mode="after")
    def _cells_are_named(self) -> Self:
        for name, other in (("datasets", "arms"), ("arms", "datasets")):
            if not getattr(self, name) and (getattr(self, other) or not self.dense.datasets):
                raise ValueError(f"{name}: none is named; at least one is wanted")
        return self

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        for name in ("datasets", "arms", "seeds", "beside"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice: {values}")
        for folder in map(PurePosixPath, self.beside):
            if folder.is_absolute() or ".." in folder.parts or folder.parts[:1] in ((), ("reports",), ("data",)):
                raise ValueError(f"beside: a folder below this one wanted, outside data and reports (got {folder})")
        if common := set(self.seeds) & set(self.tuning.seeds):
            raise ValueError(f"tuning.seeds: {min(common)} is a seed of the study too; trials have seeds of their own")
        return self
