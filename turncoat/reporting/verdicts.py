"""Verdicts by fixed rules (docs/claims.md). The rules see numbers and flags, never a name or an opinion.

A blocking flag on a whole record withholds the word from all that is under attack: the attacks may have failed. One on
a single attack says that it finds less than a stronger one. That is no reason to be silent on a claim about accuracy
under this very attack, or a larger suite would decide less than a small one: the word stands, with a note beside it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from turncoat.reporting import tuning
from turncoat.reporting.cell import Cell
from turncoat.reporting.claims import Claim, Measurement, Paper
from turncoat.reporting.contrast import Contrast, contrast
from turncoat.reporting.statistics import LEVEL, MOST_SEEDS, POWER, Interval, holm
from turncoat.reporting.study import Study

Word = Literal[
    "reproduced",
    "direction holds",
    "smaller than claimed",
    "not reproduced",
    "inconclusive",
    "one seed only",
    "unreliable",
    "not run",
]
WORDS: tuple[Word, ...] = get_args(Word)
DECIDED = WORDS[:5]  # by an interval over seeds and images: the family of tests that Holm's adjustment is over
HOLDS = WORDS[:2]
# The adversary that work on these data sets names (Madry et al. 2018; RobustBench): norm, epsilon.
THREATS = {"mnist": ("linf", 0.3), "cifar10": ("linf", 8 / 255), "cifar100": ("linf", 8 / 255)}


@dataclass(frozen=True)
class Verdict:
    """What became of one claim on one data set. Effect and interval are percentage points, `arm` minus `against`."""

    paper: str
    claim: str
    dataset: str
    word: Word
    why: str
    own_setting: bool
    our_reading: bool  # the method was reimplemented from an abstract
    effect: float | None = None
    interval: Interval | None = None
    p_value: float | None = None  # of the same statistic as the interval; `level`: of a difference beyond the margin
    p_holm: float | None = None  # adjusted for all claims that the study decides
    seeds_needed: int | None = None  # to decide what is inconclusive, on as many images; None: no number would
    n: int | None = None
    seeds: tuple[int, ...] = ()
    cells: tuple[Cell, ...] = ()
    note: str = ""  # what the word does not say, to be read beside it
    tuning: str = ""  # of two arms: whether they are tuned ones, and then what the arms as given come to

    @property
    def tuned(self) -> bool:
        """Whether both arms are at the best setting that as many trials found."""
        return self.tuning.startswith("tuned")

    @property
    def alone(self) -> bool:
        """Whether what it says of a direction holds by itself, but not among all claims that were tested with it."""
        return self.p_value is not None and self.p_holm is not None and self.p_value < 1 - LEVEL <= self.p_holm


def judge_all(study: Study, papers: Iterable[Paper]) -> list[Verdict]:
    """Every claim on every data set of the study, and on the claim's own data sets where the study lacks them."""
    verdicts = []
    for paper in papers:
        for claim in paper.claims:
            studied = [name for name in study.settings.study.every if study.task(name) in claim.tasks]
            there = {source_of(study, name) for name in studied}
            absent = [source for source in claim.datasets if source not in there | set(studied)]
            verdicts += [judge(study, paper, claim, dataset) for dataset in [*studied, *absent]]
    return adjusted(verdicts)


def adjusted(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The same with Holm's p-values, over those that an interval over seeds and images decides."""
    tested = [place for place, verdict in enumerate(verdicts) if verdict.word in DECIDED]
    found = dict(zip(tested, holm([p for i in tested if (p := verdicts[i].p_value) is not None]), strict=True))
    return [replace(verdict, p_holm=found.get(place)) for place, verdict in enumerate(verdicts)]


def judge(study: Study, paper: Paper, claim: Claim, dataset: str) -> Verdict:
    """The verdict on one claim on one data set: on the tuned arms where the study has both, else on those named."""
    measured = measurement_of(study, claim, dataset)
    given = _judged(study, paper, claim, dataset, measured)
    if measured.arm == measured.against or dataset not in study.settings.study.datasets:
        return given
    pair = tuning.tuned_pair(study, dataset, (measured.arm, measured.against))
    if isinstance(pair, str):
        return replace(given, tuning=pair) if given.effect is not None else given
    tuned = measured.model_copy(update={"arm": pair[0], "against": pair[1]})
    beside = f"the arms as given: {given.word}"
    if given.effect is not None and given.interval:
        numbers = f"{given.effect:+.1f} [{given.interval.low:+.1f}, {given.interval.high:+.1f}]"
        beside += f", {numbers} points".replace("-", "−")
    return replace(_judged(study, paper, claim, dataset, tuned), tuning=f"{tuning.how(study, dataset, pair)}; {beside}")


def _judged(study: Study, paper: Paper, claim: Claim, dataset: str, measured: Measurement) -> Verdict:
    own = own_setting(study, claim, dataset)

    def verdict(word: Word, why: str, **numbers: object) -> Verdict:
        return Verdict(paper.name, claim.id, dataset, word, why, own, paper.reading, **numbers)  # type: ignore[arg-type]

    if lack := _lack(study, measured, dataset):
        return verdict("not run", lack)
    second = measured.against_metric or measured.metric
    found = contrast(study, dataset, (measured.arm, measured.against), measured.metric, second)
    if found is None:
        absent = " or ".join(dict.fromkeys([measured.metric, second]))
        return verdict("not run", f"the suite has no measure named {absent}")
    numbers = {name: getattr(found, name) for name in ("effect", "interval", "n", "seeds", "cells")}
    level = measured.direction == "level"
    numbers["p_value"] = found.mean.p_level(measured.margin) if level else found.mean.p_value
    if found.notes:
        numbers["note"] = _note(dict.fromkeys([measured.metric, second]), found.notes)
    if barring := [flag for flag in found.flags if flag not in found.notes]:
        return verdict("unreliable", f"flagged: {'; '.join(barring)}", **numbers)
    if shortfall := _shortfall(study, claim, dataset, measured.arm):
        return verdict("unreliable", shortfall, **numbers)
    word, why = rule(measured, found.interval, len(found.seeds), own)
    if word == "inconclusive":
        numbers["seeds_needed"] = found.mean.seeds_needed(_distance(measured, found.effect))
        why = f"{why}; {_reason(found, numbers['seeds_needed'])}"
    return verdict(word, why, **numbers)


def _distance(measured: Measurement, effect: float) -> float:
    """How far the effect is from the end of an open question that it lies farthest from: zero, or the margin."""
    if measured.direction == "level":
        return abs(measured.margin - abs(effect))
    turned = effect if measured.direction == "higher" else -effect
    return max(abs(turned), measured.margin - turned)


def _reason(found: Contrast, needed: int | None) -> str:
    """What keeps the interval wide, and how many seeds would do."""
    share = found.mean.of_seeds / found.mean.error**2
    what = f"{100 * share:.0f} % of its variance is that of {len(found.seeds)} seeds"
    if needed is None:
        return f"{what}, and not even {MOST_SEEDS:,} would decide it on {found.n} images"
    return f"{what}; {needed} would decide it with power {POWER:g}, were the effect as measured"


def _note(attacks: Iterable[str], flags: Sequence[str]) -> str:
    """How to read a verdict on the accuracy under an attack that leaves more than a stronger one.

    The number is no robustness, but it is the accuracy under that attack, and that is what the claim is about.
    """
    names = " and ".join(attacks)
    return f"{names} overstates ({'; '.join(flags)}): read it as accuracy under {names}, not as robustness"


def _shortfall(study: Study, claim: Claim, dataset: str, arm: str) -> str | None:
    """Why training was not what the claim speaks of, on some seed of its first arm; None where nothing is asked."""
    if (needs := claim.needs) is None:
        return None
    if needs.metric:
        counts = [record.best.count(needs.metric) for _, record in study.of(dataset, arm)]
        shares = [count.accuracy if count else None for count in counts]
    else:
        shares = study.trained(dataset, arm, str(needs.column))
    if any(share is None for share in shares):
        return f"training {arm} left no {needs.column or needs.metric}, which is to be {100 * needs.least:g} % or more"
    known = [share for share in shares if share is not None]
    if min(known) >= needs.least:
        return None
    return f"{needs.what}: {percent_range(known)} in {arm}, where the claim needs {100 * needs.least:g} %"


def percent_range(shares: Sequence[float]) -> str:
    """`2.5 to 12.5 %` of fractions in [0, 1], one a seed; `5 %` where they are the same."""
    ends = dict.fromkeys(f"{100 * share:.3g}" for share in (min(shares), max(shares)))
    return f"{' to '.join(ends)} %"


def rule(measured: Measurement, interval: Interval, seeds: int, own: bool) -> tuple[Word, str]:
    """The word for an effect's interval, and the reason: the table in docs/claims.md as a pure function."""
    margin = measured.margin
    needed = margin_text(margin)
    if seeds < 2:
        return "one seed only", "the interval holds other images, and says nothing of the next seed"
    if measured.direction == "level":
        if -margin <= interval.low and interval.high <= margin:
            return _best(own, f"the interval lies within ±{needed}")
        if interval.low > margin or interval.high < -margin:
            return "not reproduced", f"the interval lies outside ±{needed}"
        return "inconclusive", f"the interval reaches across ±{needed}"
    low, high = interval if measured.direction == "higher" else (-interval.high, -interval.low)
    if low > 0 and low >= margin:
        beyond = f"lies {needed} or more in the claimed direction" if margin else "lies in the claimed direction"
        return _best(own, f"the whole interval {beyond}")
    if low > 0:
        less = "and every effect as large as" if high < margin else "but not effects below"
        return "direction holds", f"the interval excludes 0, {less} {needed}"
    if high <= 0:
        return "not reproduced", "the whole interval lies in the opposite direction"
    if high < margin:
        return "smaller than claimed", f"the interval excludes the {needed} that the claim needs, and covers 0"
    return "inconclusive", f"the interval covers both 0 and {needed}" if margin else "the interval covers 0"


def margin_text(margin: float) -> str:
    """`1 point`, `2.66 points`."""
    return f"{margin:g} point{'' if margin == 1 else 's'}"


def _best(own: bool, why: str) -> tuple[Word, str]:
    """`reproduced` is kept for the claim's own setting."""
    if not own:
        return "direction holds", f"{why}; this is not the setting of the claim, so no more can be said"
    return "reproduced", why


def measurement_of(study: Study, claim: Claim, dataset: str) -> Measurement:
    """What decides the claim on an entry of params.yaml: what `on` says of its name, else of its source."""
    return claim.measurement(dataset if dataset in claim.on else source_of(study, dataset))


def own_setting(study: Study, claim: Claim, dataset: str) -> bool:
    """Whether data source, threat and, where the claim names any, network are what the claim is about.

    The name of the entry in params.yaml is of no account: `cifar10-given` is CIFAR-10.
    """
    plan = study.settings.datasets.get(dataset)
    source = source_of(study, dataset)
    if source not in claim.datasets or plan is None:
        return source in claim.datasets
    norm, epsilon = THREATS.get(source, (plan.threat.norm, plan.threat.epsilon))
    same = plan.threat.norm == norm and math.isclose(plan.threat.epsilon, epsilon, rel_tol=1e-3)
    return same and (not claim.networks or plan.model in claim.networks)


def source_of(study: Study, dataset: str) -> str:
    """What the images of an entry of params.yaml are."""
    plan = study.settings.datasets.get(dataset)
    return plan.data.source if plan else dataset


def _lack(study: Study, measured: Measurement, dataset: str) -> str | None:
    """Why the claim cannot be decided: a data set, an arm or a cell that is not there."""
    if dataset not in study.settings.study.every:
        return f"the study does not include {dataset}"
    arms = list(dict.fromkeys([measured.arm, measured.against]))
    if absent := [arm for arm in arms if arm not in study.settings.study.arms_on(dataset)]:
        return f"the study does not include {' and '.join(absent)}"
    cells = [study.cell(dataset, arm, seed) for arm in arms for seed in study.settings.study.seeds]
    gone = [cell for cell in cells if cell in study.missing]
    return f"missing: {', '.join(map(str, gone))} ({study.missing[gone[0]]})" if gone else None
