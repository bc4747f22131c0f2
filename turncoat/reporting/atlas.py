"""The atlas: every claim on every kept study, on one page and in one table, and a headline a paper by rule."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from turncoat.errors import TurncoatError
from turncoat.reporting.claims import Claim, Measurement, Paper
from turncoat.reporting.page import environment
from turncoat.reporting.study import Study
from turncoat.reporting.verdicts import DECIDED, HOLDS, judge_all, measurement_of

MARKS = ("<!-- atlas -->", "<!-- /atlas -->")
Row = dict[str, Any]


def table(studies: Mapping[str, Study], papers: Sequence[Paper]) -> list[Row]:
    """A row for each claim and kept study that measured it, sorted by paper, claim and data set.

    Effect and interval are percentage points. `measured`: what stood for the claim there. `counts`: whether the
    word is a verdict, which nothing under a blocking flag or of one seed is. A claim that no study measured has one
    row, "not run", without a study.
    """
    claims = {claim.id: claim for paper in papers for claim in paper.claims}
    found: dict[tuple[str, str], list[Row]] = {}
    for name, study in studies.items():
        for verdict in judge_all(study, papers):
            if verdict.effect is None:
                continue
            row = {key: value for key, value in asdict(verdict).items() if key not in ("cells", "p_value", "p_holm")}
            claim = claims[verdict.claim]
            measured = measurement_of(study, claim, verdict.dataset)
            row |= {
                "study": name,
                "measured": _what(measured, claim),
                "effect": round(verdict.effect, 2),
                "interval": [round(bound, 2) for bound in verdict.interval] if verdict.interval else None,
                "seeds": list(verdict.seeds),
                "counts": verdict.word in DECIDED,
                "cells": [str(cell) for cell in verdict.cells],
                "command": f"python -m stages.reference build {name}",
            }
            found.setdefault((verdict.paper, verdict.claim), []).append(row)
    rows: list[Row] = []
    for paper in papers:
        for claim in paper.claims:
            lacking: Row = {"paper": paper.name, "claim": claim.id, "dataset": "", "word": "not run"}
            lacking |= {"counts": False, "study": None, "why": _lacking(claim)}
            mine = sorted(found.get((paper.name, claim.id), [lacking]), key=lambda row: row["dataset"])
            rows += [{"says": claim.says, "kind": claim.kind} | row for row in mine]
    return rows


def _lacking(claim: Claim) -> str:
    measured = claim.measured
    arms = " and ".join(dict.fromkeys([measured.arm, measured.against]))
    metrics = " and ".join(dict.fromkeys([measured.metric, measured.against_metric or measured.metric]))
    return f"no kept study has measured {metrics} of {arms}"


def outstanding(papers: Sequence[Paper], rows: Sequence[Row], costs: Mapping[str, Row]) -> list[Row]:
    """The claims without a verdict in their own setting, and what the cells for one would take.

    Args:
        costs: by claim; what stands in each is said in benchmarks/claim_costs.py.
    """
    judged = {row["claim"] for row in rows if row["counts"] and row.get("own_setting")}
    claims = [(paper, claim) for paper in papers for claim in paper.claims]
    return [
        {"paper": paper.name, "claim": claim.id} | dict(costs[claim.id])
        for paper, claim in claims
        if claim.id in costs and claim.id not in judged
    ]


def headline(paper: Paper, rows: Sequence[Row]) -> str:
    """What became of the paper's headline claims, counted over data sets."""
    claims = [claim for claim in paper.claims if claim.kind == "headline"]
    return "; ".join(_counted(claim, [row for row in rows if row["claim"] == claim.id]) for claim in claims) + "."


def _counted(claim: Claim, rows: Sequence[Row]) -> str:
    """Of each measurement that stood for the claim, on how many data sets it holds."""
    kinds = list(dict.fromkeys(row["measured"] for row in rows if row["study"]))
    if not kinds:
        return f"{_what(claim.measured, claim)}: not run"
    return "; ".join(_held(what, [row for row in rows if row["study"] and row["measured"] == what]) for what in kinds)


def _held(what: str, rows: Sequence[Row]) -> str:
    best: dict[str, Row] = {}  # of a data set's studies the verdict with the narrowest interval, else what there is
    for row in sorted(rows, key=lambda row: (row["counts"], _precision(row))):
        best[row["dataset"]] = row
    decided = [name for name, row in best.items() if row["counts"] and row["word"] != "inconclusive"]
    if not decided:
        return f"{what}: measured on {', '.join(sorted(best))}, decided on none"
    holds = [name for name in decided if best[name]["word"] in HOLDS]
    told = f"{what} on {len(holds)} of {len(decided)} data sets ({', '.join(sorted(decided))})"
    rest = sorted(best.keys() - set(decided))
    return told + f", undecided on {', '.join(rest)}" * bool(rest)


def _what(measured: Measurement, claim: Claim) -> str:
    how = {"higher": "ahead of", "lower": "below", "level": "level with"}[measured.direction]
    under = "on clean images" if measured.metric == "clean" else f"under {measured.metric}"
    what = f"{measured.arm} {how} {measured.against} {under}"
    if (second := measured.against_metric) and second != measured.metric:
        what += f" (against {second})"
    return what if "classification" in claim.tasks else f"{what} in {' and '.join(claim.tasks)}"


def lines(papers: Sequence[Paper], rows: Sequence[Row]) -> str:
    """The table for README, a row a paper: of its headline claims the measured one that says most.

    In its own setting before elsewhere, a verdict before none, more seeds before fewer, then as claims.yaml has them;
    of several studies of one claim the one with the narrowest interval.
    """
    head = "| Paper | Headline claim | Reported | Measured here | Verdict | On |\n|---|---|--:|--:|---|---|\n"
    return head + "".join(f"| {' | '.join(_line(paper, rows))} |\n" for paper in papers)


def _line(paper: Paper, rows: Sequence[Row]) -> list[str]:
    own = [row for row in rows if row["paper"] == paper.name and row["kind"] == "headline"]
    row = max(own, key=_says)
    row = max((other for other in own if other["claim"] == row["claim"] and _says(other) == _says(row)), key=_precision)
    claim = next(claim for claim in paper.claims if claim.id == row["claim"])
    reported = "not read" if isinstance(claim.reported, str) else f"{claim.reported.points:+.2f}"
    name = f"[{paper.short}](turncoat/papers/{paper.name}/README.md), {paper.citation.year}"
    if not row["study"]:
        return [name, claim.says, reported, "", "not run", ""]
    interval = f" [{row['interval'][0]:+.1f}, {row['interval'][1]:+.1f}]" if row["interval"] else ""
    verdict = row["word"] + ", under our reading" * paper.reading
    on = f"{row['dataset']}, {len(row['seeds'])} seed{'s' * (len(row['seeds']) > 1)} (`{row['study']}`)"
    return [name, claim.says, reported, f"{row['effect']:+.1f}{interval}".replace("-", "−"), verdict, on]


def _says(row: Row) -> tuple[bool, bool, bool, int]:
    own, counts = row.get("own_setting", False), row.get("counts", False)
    return bool(row["study"]), own, counts, len(row.get("seeds", ()))


def _precision(row: Row) -> float:
    low, high = row.get("interval") or (-100, 100)
    return float(low - high)


def page(papers: Sequence[Paper], rows: Sequence[Row], costs: Mapping[str, Row]) -> str:
    """The page as HTML, self-contained; the same rows and costs give the same bytes."""
    datasets = sorted({row["dataset"] for row in rows if row["study"]})
    heads = [(paper, headline(paper, rows)) for paper in papers]
    text = (
        environment()
        .get_template("atlas.html.j2")
        .render(rows=rows, datasets=datasets, heads=heads, outstanding=outstanding(papers, rows, costs))
    )
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


def written(text: str, table: str, path: Path) -> str:
    """The text of README with the table between the marks.

    Raises:
        TurncoatError: a mark is missing, or stands twice.
    """
    first, last = MARKS
    if text.count(first) != 1 or text.count(last) != 1 or text.index(first) > text.index(last):
        raise TurncoatError(f"{path}: {first} and {last} are wanted, once each, around the table of the atlas")
    before, rest = text.split(first)
    return f"{before}{first}\n{table}{last}{rest.split(last)[1]}"
