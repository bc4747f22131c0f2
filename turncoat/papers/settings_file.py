"""data/settings.json: all settings of a study as JSON, of which each cell depends on its part; arms in full."""

from pathlib import Path
from typing import Any, Literal

from turncoat.closure import code_checksum
from turncoat.files import read_json
from turncoat.papers.index import known
from turncoat.reporting.study import Resolve
from turncoat.settings import Settings, merged

FILE = Path("data/settings.json")


def contents(settings: Settings, path: Path | str = "params.yaml") -> dict[str, Any]:
    """params.yaml merged with all that it is merged with, and beside it:

    `says`      arm -> what it is, in a sentence
    `resolved`  section -> data set -> arm of the study, or name under `pretrained` -> its settings with all defaults
    `code`      checksum of the code that has these defaults
    `trials`    data set -> tuned arm of the study -> number of a trial -> the arm at that point of its grid
    `listings`  data set -> what lies where its own images are read, as names and times of change tell; or null
    `given`     data set -> checksums of the files that its network is made of: weights, a factory's code; or null
    `beside`    folder of study.beside -> checksum of the record there
    """
    from turncoat.data.folder import listing
    from turncoat.models.given import checksums
    from turncoat.papers.arms import resolved, trials
    from turncoat.reporting import beside
    from turncoat.tuning import put

    study = settings.study
    there = {
        "arms": {name: {arm: resolved(settings, name, arm) for arm in study.arms_on(name)} for name in study.every},
        "pretrained": {
            name: {which: resolved(settings, name, which, "pretrained") for which in settings.pretrained}
            for name in study.datasets
        },
    }
    plans = {name: settings.datasets[name].data.path for name in study.every}
    own = {name: listing(path) if path else None for name, path in plans.items()}
    tried = {
        name: {
            arm: {str(number): put(settings.arms[arm], at) for number, at in enumerate(trials(settings, name, arm))}
            for arm in study.tuning.arms
        }
        for name in study.datasets
    }
    given = {name: checksums(settings.datasets[name]) or None for name in study.every}
    seen = {"trials": tried, "listings": own, "given": given, "beside": beside.checksums(settings)}
    return _stated(settings, path) | {"resolved": there, "code": _code(), **seen}


def resolver(settings: Settings, path: Path | str = "params.yaml") -> Resolve:
    """An arm's settings with all defaults: from data/settings.json, or, where that is of other settings, made anew.

    Making them anew imports the methods, and torch with them.
    """
    kept = read_json(FILE) if FILE.exists() else {}
    there = kept.pop("resolved", None)
    for name in ("listings", "trials", "given", "beside"):
        kept.pop(name, None)
    if there is None or kept != _stated(settings, path) | {"code": _code()}:
        there = contents(settings, path)["resolved"]

    def resolve(dataset: str, arm: str, section: Literal["arms", "pretrained"] = "arms") -> dict[str, Any]:
        found: dict[str, Any] = there[section][dataset][arm]
        return found

    return resolve


def _stated(settings: Settings, path: Path | str) -> dict[str, Any]:
    """What the files say, as JSON holds it, tuned arms in full.

    Data sets have their defaults, for DVC refuses a parameter not there.
    """
    values, says, _ = merged(path)
    plans = {name: plan.model_dump(mode="json") for name, plan in settings.datasets.items()}
    return values | {"arms": settings.arms, "datasets": plans, "says": says}


def _code() -> str:
    return code_checksum(["turncoat.papers.arms", *(place.partition(":")[0] for place in known().values())])
