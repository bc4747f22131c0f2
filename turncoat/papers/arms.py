"""All methods by name, and the arms of a study checked against them."""

import importlib
import re
from typing import Any, Literal

from turncoat.errors import TurncoatError, there_are
from turncoat.methods.base import Method
from turncoat.papers.index import known, module_of
from turncoat.settings import ArmSettings, Settings, TrainingSettings, validate
from turncoat.tuning import KEYS, Values, points, put, taken

Section = Literal["arms", "pretrained"]  # of the settings, where networks to train are described


def method_class(method: str) -> type[Method[Any]]:
    """The class of the method; its module is imported here, and no other method's.

    Raises:
        TurncoatError: there is no such method.
    """
    module = module_of(method)
    name = known()[method].split(":")[1]
    try:
        found: type[Method[Any]] = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise TurncoatError(f"{module.replace('.', '/')}.py: method {method}: {name} is not there ({error})") from error
    return found


def arm_settings(settings: Settings, arm: str, section: Section = "arms") -> ArmSettings:
    """The settings of `arms.<arm>` (or `pretrained.<arm>`), in the class that its method names.

    Raises:
        TurncoatError: the arm or its method is not defined, or a key is unknown or out of range.
    """
    arms = getattr(settings, section)
    if arm not in arms:
        raise TurncoatError(f"params.yaml: {section}.{arm} is not defined; {there_are(arm, arms)}")
    raw, file = arms[arm], settings.file(section, arm)
    if raw.get("method") not in (there := known()):
        raise TurncoatError(
            f"{file}: {section}.{arm}.method: {raw.get('method')!r} is not defined; "
            f"{there_are(str(raw.get('method')), there)}"
        )
    own = {key: value for key, value in raw.items() if key not in KEYS}
    return validate(method_class(raw["method"]).settings_class, own, f"{section}.{arm}", file)


def schedule(settings: Settings, dataset: str, arm: str, section: Section = "arms") -> TrainingSettings:
    """The data set's `finetuning` schedule with the arm's departures from it; `epochs: 8x` is eight times as long."""
    departures = dict(arm_settings(settings, arm, section).training)
    usual = settings.datasets[dataset].finetuning.model_dump()
    if times := re.fullmatch(r"([1-9]\d*)x", str(departures.get("epochs"))):
        departures["epochs"] = int(times[1]) * usual["epochs"]
    file = settings.file(section, arm)
    return validate(TrainingSettings, usual | departures, f"{section}.{arm}.training", file)


def resolved(settings: Settings, dataset: str, arm: str, section: Section = "arms") -> dict[str, Any]:
    """All settings of an arm on a data set, defaults filled in: what its record says it was made with."""
    plan = arm_settings(settings, arm, section)
    start = plan.start or settings.datasets[dataset].start
    training = schedule(settings, dataset, arm, section).model_dump()
    return plan.model_dump() | {"start": start, "training": training}


def check_arms(settings: Settings) -> None:
    """Check every arm that is defined, the ones outside the study too: a typing error is found at once."""
    named: list[tuple[Section, str]] = [("arms", arm) for arm in settings.arms]
    named += [("pretrained", arm) for arm in settings.pretrained]
    for section, arm in named:
        file = settings.file(section, arm)
        for name in arm_settings(settings, arm, section).builds_on:
            if section == "pretrained":
                raise TurncoatError(f"{file}: pretrained.{arm} builds on {name}: only arms build on `pretrained`")
            arm_settings(settings, name, "pretrained")
            if arm in settings.study.arms and name not in settings.study.pretrained:
                raise TurncoatError(f"{file}: arms.{arm} builds on {name}: add it to study.pretrained in params.yaml")
        for dataset in settings.study.datasets:
            schedule(settings, dataset, arm, section)
    for arm in settings.study.dense.arms:
        check_dense(settings, arm)
    check_grids(settings)


def check_dense(settings: Settings, arm: str) -> None:
    """Check that an arm has something to do where images have no single label.

    Raises:
        TurncoatError: its method has not.
    """
    method = settings.arms[arm]["method"]
    if not method_class(method).dense:
        there = ", ".join(name for name in known() if method_class(name).dense)
        raise TurncoatError(
            f"study.dense.arms: {arm} is of method {method}, which needs one label an image; for segmentation and "
            f"detection there are the methods {there}"
        )
    for dataset in settings.study.dense.datasets:
        schedule(settings, dataset, arm)
        if settings.arms[arm].get("weight_by") == "pixel" and settings.datasets[dataset].task != "segmentation":
            raise TurncoatError(
                f"study.dense: arms.{arm} weighs pixels, and {dataset} is for {settings.datasets[dataset].task}; give "
                "the two a study each"
            )


def own_point(settings: Settings, dataset: str, arm: str) -> Values:
    """What the settings under an arm's `tune` are without it: the paper's, or the data set's."""
    return taken(resolved(settings, dataset, arm), settings.arms[arm]["tune"], f"arms.{arm}.tune")


def trials(settings: Settings, dataset: str, arm: str) -> list[Values]:
    """The points of a tuned arm's grid that are tried on the data set, in the order of their numbers.

    Raises:
        TurncoatError: the grid does not fit the arm, or has too few points.
    """
    where = f"{settings.file('arms', arm)}: arms.{arm}.tune"
    own = own_point(settings, dataset, arm)
    return points(settings.arms[arm]["tune"], own, len(settings.study.tuning.trials), where)


def measure(settings: Settings, arm: str) -> str:
    """What a tuned arm is chosen by on the validation split: clean or robust.

    Raises:
        TurncoatError: another word, or none where the method chooses its checkpoint by neither.
    """
    raw = settings.arms[arm]
    by = raw.get("tune_by", method_class(raw["method"]).selection.removeprefix("validation_"))
    if by not in ("clean", "robust"):
        raise TurncoatError(f"{settings.file('arms', arm)}: arms.{arm}.tune_by: clean or robust is wanted (got {by!r})")
    return str(by)


def at(settings: Settings, arm: str, values: Values, name: str) -> Settings:
    """The settings with one more arm, `name`: a tuned arm at one point of its grid."""
    return settings.model_copy(update={"arms": settings.arms | {name: put(settings.arms[arm], values)}})


def check_grids(settings: Settings) -> None:
    """Check every grid that is defined: its values fit the method; of the study's own, there are enough points.

    Raises:
        TurncoatError: the arm and what is wrong.
    """
    for arm in (name for name, raw in settings.arms.items() if "tune" in raw):
        grid, file = settings.arms[arm]["tune"], settings.file("arms", arm)
        if not isinstance(grid, dict):
            raise TurncoatError(f"{file}: arms.{arm}.tune: settings with lists of values are wanted (got {grid!r})")
        measure(settings, arm)
        for dataset in settings.study.datasets:
            own = own_point(settings, dataset, arm)
            for name, value in ((name, value) for name, values in grid.items() for value in values or [None]):
                schedule(at(settings, arm, own | {name: value}, arm), dataset, arm)
        if arm in settings.study.tuning.arms:
            for dataset in settings.study.datasets:
                trials(settings, dataset, arm)
