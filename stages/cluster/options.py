"""cluster.yaml, beside params.yaml and unknown to git: what a cell may take of the cluster. No result rests on it."""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from stages.pipeline import FILE as PIPELINE
from turncoat.errors import TurncoatError, there_are
from turncoat.reading import read_yaml
from turncoat.strict import Strict, validate

FILE = Path("cluster.yaml")
CLOSING = "closing"  # the job that enters what is finished into dvc.lock and makes the report
HERE = (
    "inputs",
    "download",
    "download-dense",
    "report",
)  # by the head, which can reach the network, or the closing job


class Resources(Strict):
    """What each job of a stage asks for; None: the cluster's own default."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gpus: int = Field(0, ge=0, description="GPUs of one job, all on one node")
    cpus: int = Field(1, gt=0)
    memory: float | None = Field(None, gt=0, description="GB of one job")
    minutes: int = Field(240, gt=0, description="a job that takes longer is submitted again and goes on")
    more: dict[str, str | int | bool] = Field({}, description="further options of sbatch, by their long names")
    setup: list[str] = Field([], description="lines of shell before each job: module load cuda")


class Options(Strict):
    """The whole file. `stages` departs from `all`, stage by stage."""

    all: Resources = Resources()
    stages: dict[str, dict[str, Any]] = {}
    warning: int = Field(90, gt=0, description="seconds before its end that a job is told of it")
    resumptions: int = Field(20, ge=0, description="times that a cell whose time ran out is submitted again")
    array: int = Field(1000, gt=0, description="cells of one job array at most: Slurm's MaxArraySize - 1")
    at_once: int = Field(256, gt=0, description="cells of one array that run at a time")

    @model_validator(mode="after")
    def _stages_are_right(self) -> "Options":
        for stage in self.stages:
            self.of(stage)
        return self

    def of(self, stage: str) -> Resources:
        """What jobs of a stage ask for."""
        given = self.stages.get(stage, {})
        return validate(Resources, self.all.model_dump() | given, f"stages.{stage}", str(FILE))


def read(stages: set[str], file: Path = FILE) -> Options:
    """The options; all defaults where there is no file.

    Args:
        stages: names of those that there are.

    Raises:
        TurncoatError: an unknown key or stage, a value out of range.
    """
    options = validate(Options, read_yaml(file) or {} if file.exists() else {}, "", str(file))
    known = [*sorted(stages - set(HERE)), CLOSING]
    for stage in options.stages:
        if stage not in known:
            raise TurncoatError(
                f"{file}: stages.{stage}: no stage of {PIPELINE} that runs as jobs; {there_are(stage, known)}"
            )
    return options
