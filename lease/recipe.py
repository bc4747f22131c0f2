"""From speeds and seconds to a study: how many epochs the time allows, and params.yaml for it."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from turncoat.errors import TurncoatError
from turncoat.files import read_json
from turncoat.reading import read_yaml

Plan = dict[str, Any]

SHARE = 0.8  # of the seconds, for the deciding arms: speeds differ from cell to cell
MOST = 30  # epochs
COMPILING = 40  # seconds that a cell spends on it, about
PLAN = Path(__file__).with_name("study.yaml")
SHELF = Path(__file__).parents[1] / "turncoat/data/datasets.yaml"


def plan_of(scale: str) -> Plan:
    """The study of a scale, "full" or "tiny", out of study.yaml."""
    plan: Plan = read_yaml(PLAN)[scale]
    return plan


def params(scale: str, base: Path, epochs: int, compute: Mapping[str, Any], first: bool) -> dict[str, Any]:
    """params.yaml of a lease: `base` with the study of study.yaml.

    Args:
        first: the study of call one: one arm, a smaller suite, and the same attack in two precisions.
    """
    plans = read_yaml(PLAN)
    plan: Plan = plans[scale]
    settings: Plan = dict(read_yaml(base))
    name = plan["dataset"]
    entry = settings["datasets"].get(name) or read_yaml(SHELF)["datasets"][name]
    entry["data"] = plan["data"]
    entry["training"] |= {"epochs": plan["baseline"] * epochs, "validate_every": max(1, plan["baseline"] * epochs)}
    entry["finetuning"] |= {"epochs": epochs, "validate_every": max(1, epochs // 2)}
    suite = plans["suite"] | {"images": plan["images"], "batch_size": plan["batch"]}
    settings["suites"] = dict(settings.get("suites") or {}) | {"lease": suite}
    if first:
        suite["attacks"] = {key: suite["attacks"][key] for key in ("pgd-20", "autoattack")} | plans["compared"]
        suite |= {"images": plan["images"] // 2, "shifts": [], "universal": {}}
    settings["datasets"] = {name: entry}
    settings["compute"] = settings.get("compute", {}) | compute
    settings["study"] |= {
        "datasets": [name],
        "arms": plan["arms"][:1] if first else plan["arms"],
        "seeds": [0],
        "pretrained": [] if first else plan["pretrained"],
        "suite": "lease",
    }
    return settings


def write(settings: Mapping[str, Any], path: Path) -> None:
    path.write_text("# made by lease/recipe.py\n" + yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))


def speeds(work: Path, bench: Path | None, scale: str) -> dict[str, Any]:
    """What call one measured: seconds an image of each arm's training, seconds of an evaluation, what is fastest.

    The arm that was trained is the measure; the benchmark, where it came to its end, says how the others relate to it,
    and whether another precision or compiling is faster.

    Raises:
        TurncoatError: no cell came to its end in call one.
    """
    plan = plan_of(scale)
    arm, name = plan["arms"][0], plan["dataset"]
    times = work / "reports/times" / name / arm / "0.json"
    if not times.is_file():
        raise TurncoatError(f"{times}: call one finished no cell: give it more minutes")
    took = read_json(times)["seconds"]
    images = read_json(work / "data" / name / "dataset.json")["counts"]["train"]["images"]
    found: dict[str, Any] = {
        "images": images,
        "each": {arm: took["training"] / images},  # one epoch was trained
        "evaluation": 2 * took["evaluation"] * 2 / 3,  # half of the images there, and AutoAttack twice
        "compute": {"precision": "auto", "compile": "auto"},
        "table": [],
    }
    steps = read_json(bench)["attacks"].get("training step of each arm") if bench and bench.is_file() else None
    if steps:
        middle = {key: statistics.median(run["seconds"] / run["images"] for run in runs) for key, runs in steps.items()}
        found["table"] = [
            {"step": key, "images a second": round(1 / each), "of a matrix product's speed": _share(steps[key])}
            for key, each in middle.items()
        ]
        found["each"] |= {key: found["each"][arm] * each / middle[arm] for key, each in middle.items() if key != arm}
        ways: dict[str, dict[str, Any]] = {arm: {"precision": "float32", "compile": False}}
        ways[f"{arm}, bfloat16"] = {"precision": "bfloat16", "compile": False}
        ways[f"{arm}, compiled"] = {"precision": "float32", "compile": True}
        ways[f"{arm}, bfloat16, compiled"] = {"precision": "bfloat16", "compile": True}
        there = {
            key: middle[key] * images * 3 + COMPILING * way["compile"] for key, way in ways.items() if key in middle
        }
        if there:
            found["compute"] = ways[min(there, key=lambda key: there[key])]
    return found


def _share(runs: Sequence[Mapping[str, float]]) -> float:
    return round(statistics.median(run.get("utilisation", 0.0) for run in runs), 4)


def epochs(scale: str, measured: Mapping[str, Any], images: int, seconds: float) -> int:
    """Epochs of fine-tuning with which the baseline and the deciding arms are done, and evaluated, in `seconds`.

    Args:
        measured: see `speeds`. images: of the training split.
    """
    plan = plan_of(scale)
    arms = plan["arms"][: plan["deciding"]]
    each, known = measured["each"], max(measured["each"].values())
    an_epoch = images * (sum(each.get(arm, known) for arm in arms) + plan["baseline"] * each.get("standard", known))
    left = SHARE * seconds - len(arms) * measured["evaluation"]
    return max(1, min(MOST, int(left / an_epoch)))
