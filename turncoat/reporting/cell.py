"""The name of one measurement of a study, and how it is made anew."""

from dataclasses import dataclass, field

from turncoat.tuning import SUFFIX


@dataclass(frozen=True, order=True)
class Cell:
    """One combination of data set, arm and seed: one DVC stage a step, one record."""

    dataset: str
    arm: str
    seed: int
    dense: bool = field(default=False, compare=False)  # of segmentation or detection: DVC's stages have other names

    def __str__(self) -> str:
        return f"{self.dataset}/{self.arm}/{self.seed}"

    @property
    def key(self) -> str:
        """The cell's name in DVC's matrix stages."""
        return f"{self.dataset}-{self.arm}-{self.seed}"

    @property
    def stages(self) -> list[str]:
        """DVC's names of the stages that train and evaluate it."""
        own = "-dense" if self.dense else SUFFIX if self.arm.endswith(SUFFIX) else ""
        return [f"{stage}{own}@{self.key}" for stage in ("finetune", "evaluate")]

    @property
    def command(self) -> str:
        """The shell command that makes this cell's record anew, from its training on."""
        return f"dvc repro -f -s {' '.join(self.stages)}"
