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


class StudySettings(Strict):
    """Which cells there are: every combination of data set, arm and seed, under one suite.

    `arms` holds those of `tuning` too, as the last, once it is read.
    """

    datasets: list[str] = Field(min_length=1)
    arms: list[str] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    suite: str
    pretrained: list[str] = Field([], description="what the arms build on besides the baseline, once a seed")
    beside: list[str] = Field([], description="folders of `turncoat.evaluation --record`, shown with the arms")
    tuning: TuningSettings = TuningSettings()

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
