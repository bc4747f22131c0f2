"""A paper's claims.yaml: what it says, where, and the measurement that decides it. See docs/claims.md."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from turncoat.errors import TurncoatError
from turncoat.reading import read_yaml
from turncoat.settings import Slug, Strict, validate
from turncoat.tasks import Task


def _one_line(text: str) -> str:
    return " ".join(text.split())


Text = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]


class Citation(Strict):
    """Where the paper is to be found; `title` is null where it could not be verified."""

    title: Text | None
    authors: Text
    venue: Text
    year: int
    links: dict[str, str] = {}


class Reported(Strict):
    """The paper's own number for the claim's effect, in percentage points, and how it comes about."""

    points: float
    of: Text


class Pair(Strict):
    """Two arms to be compared: the first minus the second."""

    arm: Slug
    against: Slug


class Instead(Pair):
    """What decides a claim on one data set in the place of what stands under `measured`: other arms, or metric too."""

    metric: str | None = None


class Measurement(Pair):
    """Accuracy of `arm` minus accuracy of `against`, in percentage points, is expected to be `direction`.

    `metric`: clean, worst, an attack of the suite, or a paper's own measure. `margin`: the effect that the claim needs;
    for `level`, the largest difference that still counts as none.
    """

    metric: str
    against_metric: str | None = None
    direction: Literal["higher", "lower", "level"]
    margin: float = Field(ge=0)

    @model_validator(mode="after")
    def _something_differs(self) -> Self:
        if self.arm == self.against and self.against_metric in (None, self.metric):
            raise ValueError(f"compares {self.metric} of {self.arm} with itself; name another arm or against_metric")
        if self.direction == "level" and self.margin == 0:
            raise ValueError("level needs a margin above 0: no two measurements agree exactly")
        return self


class Needed(Strict):
    """What the first arm must have come to for the claim to be about it.

    `column`: a share in the last row of its history.json. `metric`: an accuracy in its records.
    """

    column: str | None = None
    metric: str | None = None
    what: Text
    least: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.column is None) == (self.metric is None):
            raise ValueError("needs: name column, of history.json, or metric, of the record")
        return self


class Claim(Strict):
    """One statement that a measurement can decide, in our own words.

    `on` names other arms for single data sets, for what is a small part of one is all of another; and another metric,
    where one that takes hours is out of proportion.
    """

    id: Slug
    kind: Literal["headline", "component", "supporting", "third party", "control", "full gradient"]
    says: Text
    where: Text
    datasets: list[Slug] = Field(description="the data sets that the claim is about; empty where the paper is unread")
    networks: list[str] = []
    tasks: list[Task] = Field(["classification"], min_length=1, description="whose data sets it is judged on")
    reported: Reported | Literal["unavailable"]
    measured: Measurement
    on: dict[Slug, Instead] = {}
    needs: Needed | None = None

    def measurement(self, dataset: str) -> Measurement:
        """What decides the claim on a data set, by its source or by an entry's name."""
        instead = self.on.get(dataset)
        return self.measured.model_copy(update=instead.model_dump(exclude_none=True)) if instead else self.measured

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every pair of arms that the claim compares on some data set."""
        compared: list[Pair] = [self.measured, *self.on.values()]
        return list(dict.fromkeys((pair.arm, pair.against) for pair in compared))


class ReportedValue(Strict):
    """One number of one of the paper's tables, in percent, in the setting that the paper used."""

    arm: Slug
    metric: str
    value: float
    setting: Text


class Sweep(Strict):
    """A numeric setting of the arms, as a dotted path, to draw `metric` against.

    A line is named by the arm whose colour it takes.
    """

    setting: str
    label: Text
    metric: str
    lines: dict[Slug, list[Slug]] = Field(min_length=1)


class Paper(Strict):
    """A claims file. `arms` names those that the paper's tables and figures show; claims may use no other."""

    name: Slug
    short: Text
    citation: Citation
    basis: Literal["paper and official code", "abstract"]
    idea: list[Text] = Field(min_length=3, max_length=3, description="three sentences")
    methodology: Text
    easy: Text
    difficult: Text
    deviations: list[Text] = Field(min_length=1)
    arms: list[Slug] = Field(min_length=1)
    reported: list[ReportedValue] = []
    sweeps: list[Sweep] = []
    claims: list[Claim] = Field(min_length=1)

    @property
    def reading(self) -> bool:
        """Whether the method is reimplemented from an abstract: every verdict then holds "under our reading"."""
        return self.basis == "abstract"

    @model_validator(mode="after")
    def _names_hold_together(self) -> Self:
        ids = [claim.id for claim in self.claims]
        for swept in self.sweeps:
            if strange := [name for name, arms in swept.lines.items() if name not in arms]:
                raise ValueError(f"sweeps: {swept.setting}: the line {strange[0]} does not hold the arm of its name")
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"claims: {', '.join(twice)} stands twice")
        columns = [(value.arm, value.metric) for value in self.reported]
        if repeated := [pair for pair in columns if columns.count(pair) > 1]:
            raise ValueError(f"reported: {' under '.join(repeated[0])} stands twice")
        named = [(f"claims.{c.id}", arm) for c in self.claims for pair in c.pairs for arm in pair]
        for where, arm in named + [("reported", value.arm) for value in self.reported]:
            if arm not in self.arms:
                raise ValueError(f"{where}: {arm} is not among arms: {', '.join(self.arms)}")
        return self


def load(path: Path, name: str) -> Paper:
    """Read and check the claims file of the paper `name`.

    Raises:
        TurncoatError: the file is missing, a field is unknown, missing or of the wrong kind; names file and field.
    """
    paper = validate(Paper, read_yaml(path), "", str(path))
    if paper.name != name:
        raise TurncoatError(f"{path}: name: is {paper.name}, must be the folder's own, {name}")
    return paper
