"""AToP's table 7: each random transform before and after fine-tuning; and which arms may be compared so."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from turncoat.reporting.chapter import Maker
from turncoat.reporting.measures import accuracy
from turncoat.reporting.study import Study
from turncoat.reporting.table import Table
from turncoat.tuning import SUFFIX

TRANSFORMS = {"none": "none", "rt1": "RT1", "rt2": "RT2", "rt3": "RT3"}
PHASES = {"purifier": "purifier as pre-trained", "atop": "fine-tuned (AToP)"}
# What an arm of the comparison leaves as the paper has it; any other is an ablation.
PLAIN = {"classifier": "baseline", "votes": 1, "shared_mask": False, "attack_through": "pipeline", "ce_weight": 0.05}
PLAIN |= {"reconstruct": "clean", "gan_gradient": True}
# What the authors' own training differs in, `atop-authors`; it is compared as well.
AUTHORS = PLAIN | {"shared_mask": True, "attack_through": "classifier", "reconstruct": "adversarial"}


def transforms_table(study: Study, dataset: str, arms: Sequence[str]) -> Table | None:
    """The paper's table 7: each transform without and with fine-tuning, clean, under each attack, in the worst case."""
    found = pairs(study, dataset, arms)
    metrics = ["clean", *study.attacks(dataset), "worst"]
    rows = []
    for kind, row in found.items():
        for phase, arm in row.items():
            values = [accuracy(study, dataset, arm, metric) for metric in metrics]
            made_of = [TRANSFORMS[kind.transform], kind.purifier, "yes" if phase == "atop" else "no"]
            rows.append([*made_of, arm, *(value.text if value else "–" for value in values)])
    if not any(len(row) > 1 for row in found.values()):
        return None
    header = ["transform", "purifier", "fine-tuned", "arm", *metrics]
    caption = f"AToP on {dataset}: each random transform without and with fine-tuning, accuracy in percent"
    return Table(f"atop-transforms-{dataset}", caption, header, rows, align="llll" + "r" * len(metrics))


class Kind(NamedTuple):
    """What a purified network before fine-tuning and one after it must have in common."""

    transform: str
    purifier: str
    width: int


def pairs(study: Study, dataset: str, arms: Sequence[str]) -> dict[Kind, dict[str, str]]:
    """{kind: {phase: arm}}, of each the first arm of the study that leaves all else as the paper has it.

    A fine-tuned arm is of the kind of the purifier that it began as, `pretrained.<its purifier>`. Arms whose settings
    were settled here by trials are left out.
    """
    found: dict[Kind, dict[str, str]] = {}
    for arm in arms:
        if arm.endswith(SUFFIX):
            continue
        plan = study.plan(dataset, arm)
        plain = any(all(plan.get(key, value) == value for key, value in said.items()) for said in (PLAIN, AUTHORS))
        if plan["method"] in PHASES and plain and plan.get("attack", {}).get("steps", 1) == 1:
            began = study.resolve(dataset, plan["purifier"], "pretrained") if "purifier" in plan else plan
            if _trained_under(began["transform"]) == _trained_under(plan["transform"]):
                kind = Kind(plan["transform"], began["network"], began["width"])
                found.setdefault(kind, {}).setdefault(plan["method"], arm)
    return {
        kind: {phase: row[phase] for phase in PHASES if phase in row}
        for name in TRANSFORMS
        for kind, row in found.items()
        if kind.transform == name
    }


def _trained_under(transform: str) -> str:
    """The transform of the images that a purifier learns from: any one of the four of rt3 is one of rt2."""
    return "rt2" if transform == "rt3" else transform


def labels_of(found: Mapping[Kind, Any]) -> dict[Kind, str]:
    """The transform, and the purifier beside it where there are several kinds."""
    several = len({(kind.purifier, kind.width) for kind in found}) > 1
    return {kind: TRANSFORMS[kind.transform] + f"\n{kind.purifier}" * several for kind in found}


TABLES: dict[str, Maker] = {"transforms": transforms_table}
