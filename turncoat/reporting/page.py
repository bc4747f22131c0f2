"""reports/report.html: one file with everything in it, no script or font or picture from elsewhere.

This module gathers what the templates show; what a number means and how it looks is decided in templates/.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from turncoat.errors import TurncoatError
from turncoat.files import sha256
from turncoat.reporting import pictures, style, words
from turncoat.reporting.cell import Cell
from turncoat.reporting.chapter import Chapter
from turncoat.reporting.claims import Claim, Paper
from turncoat.reporting.conclusions import conclude
from turncoat.reporting.drawing import Drawn
from turncoat.reporting.measures import NORMS, accuracy, radius
from turncoat.reporting.study import Study
from turncoat.reporting.table import Table
from turncoat.reporting.tables import beside, p_text, points
from turncoat.reporting.verdicts import WORDS, Verdict, margin_text

if TYPE_CHECKING:
    import jinja2


SPELT = dict(enumerate(("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")))


@dataclass(frozen=True)
class Number:
    """One number of the explorer: what is shown, what it is sorted by, and where it comes from."""

    text: str
    value: float | None
    source: str  # record.json and the field in it; several, separated by blanks, for a mean


def render(
    study: Study,
    chapters: Sequence[Chapter],
    verdicts: Sequence[Verdict],
    made: Mapping[str, Table],
    drawn: Sequence[Drawn],
) -> str:
    """The page as HTML. The figures must lie in reports/figures/ already; the same files give the same bytes."""
    templates = environment()
    templates.filters |= {"points": points, "p": p_text, "slug": lambda word: str(word).replace(" ", "-")}
    templates.filters |= {"spelt": lambda count: SPELT.get(count, str(count)), "radius": radius}
    papers = [chapter.paper for chapter in chapters]
    claims = [_claim_row(study, paper, claim, verdicts) for paper in papers for claim in paper.claims]
    concluded = [
        conclude(paper, verdicts, dataset)
        for paper in papers
        for dataset in study.settings.study.every
        if any((verdict.paper, verdict.dataset) == (paper.name, dataset) for verdict in verdicts)
    ]
    page = templates.get_template("report.html.j2").render(
        study=study,
        settings=study.settings,
        norms=NORMS,
        words=WORDS,
        suites=list(dict.fromkeys(study.suite(dataset) for dataset in study.settings.study.every)),
        papers=papers,
        summary=_summary(papers, verdicts),
        claims=claims,
        conclusions=concluded,
        met=[word for word in WORDS if word in _words(claims) | {said.word for said in concluded}],
        terms=words.met(row["claim"].says for row in claims if row["claim"].kind == "headline"),
        attacks={name: words.attack(plan) for name, plan in _suite(study).items()},
        reach={paper.name: _reach([row for row in claims if row["paper"] is paper]) for paper in papers},
        marks="".join(said.after for said in concluded) + _marks(claims),
        few=pictures.LEAST,
        reach_of_heads=_reach([row for row in claims if row["claim"].kind == "headline"]),
        results={paper.name: _results(paper, verdicts) for paper in papers},
        explorer=_explorer(study),
        metrics=_metrics(study),
        tables=made,
        reported={
            name: short
            for paper in papers
            for dataset in study.datasets
            if (name := f"{paper.name}-{dataset}") in made and (short := beside(paper, made[name], dataset))
        },
        own_tables={chapter.paper.name: list(chapter.tables) for chapter in chapters},
        diagrams={chapter.paper.name: diagram(chapter) for chapter in chapters},
        says=study.settings.says,
        pictures=pictures.of_page(study.root / "reports" / "figures", drawn),
        looks=style.looks(study.settings.study.every_arm, study.settings.arms),
        provenance=_provenance(study),
        altered=_altered(study),
        flags=[(cell, flag) for cell, record in study.records.items() for flag in record.flags],
        total=len(study.records) + len(study.missing),
    )
    return "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n"


def diagram(chapter: Chapter) -> Markup:
    """The SVG of a paper's diagram.

    Raises:
        TurncoatError: the template has a fault.
    """
    import jinja2

    try:
        return Markup(environment().from_string(chapter.diagram).render())
    except jinja2.TemplateError as error:
        raise TurncoatError(f"{chapter.paper.name}/diagram.svg.j2: {error}") from error


def environment() -> "jinja2.Environment":
    """The templates; what is put into them is escaped, and a name that is not given is an error."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _suite(study: Study) -> Mapping[str, Mapping[str, Any]]:
    """The suite's attacks that some record met; all of them before anything was run."""
    suites = dict.fromkeys(study.suite(dataset) for dataset in study.settings.study.every)
    attacks = {name: plan for suite in suites for name, plan in study.settings.suites[suite].attacks.items()}
    met = {name for dataset in study.datasets for name in study.met(dataset)}
    return {name: plan for name, plan in attacks.items() if name in met or not met}


def _marks(claims: Sequence[Mapping[str, Any]]) -> str:
    """The marks that stand beside headline claims."""
    of = [verdict for row in claims if row["claim"].kind == "headline" for verdict in row["verdicts"]]
    return "‡" * any(verdict.note for verdict in of) + "§" * any(verdict.alone for verdict in of)


def _words(claims: Sequence[Mapping[str, Any]]) -> set[str]:
    """The words of the headline claims."""
    return {verdict.word for row in claims if row["claim"].kind == "headline" for verdict in row["verdicts"]}


def _reach(rows: Sequence[Mapping[str, Any]]) -> float:
    """The largest bound of the claims' intervals, and of what was reported, without sign: the scale of their bars."""
    found = [1.0]
    for row in rows:
        for verdict in row["verdicts"]:
            if verdict.interval:
                found += [abs(bound) for bound in verdict.interval]
                if row["claim"].reported != "unavailable":
                    found.append(abs(row["claim"].reported.points))
    return max(found)


def _summary(papers: Sequence[Paper], verdicts: Sequence[Verdict]) -> dict[str, dict[str, Counter[str]]]:
    """{data set: {paper: how many claims got which word}}."""
    table: dict[str, dict[str, Counter[str]]] = {}
    for verdict in verdicts:
        row = table.setdefault(verdict.dataset, {paper.name: Counter() for paper in papers})
        row[verdict.paper][verdict.word] += 1
    return table


def _claim_row(study: Study, paper: Paper, claim: Claim, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """A claim with its verdicts, one a data set, and the rule that decides it in words."""
    measured, studied = claim.measured, study.settings.study.every
    mine = [verdict for verdict in verdicts if (verdict.paper, verdict.claim) == (paper.name, claim.id)]
    elsewhere = "".join(
        f"; on {name}: {other.arm} and {other.against}{f' under {other.metric}' if other.metric else ''}"
        for name, other in claim.on.items()
    )
    asked = f"; needs {claim.needs.what}: {100 * claim.needs.least:g} % or more" if claim.needs else ""
    second = measured.against_metric or measured.metric
    metric = measured.metric if second == measured.metric else f"{measured.metric} (against {second})"
    margin = margin_text(measured.margin)
    needs = {
        "higher": f"at least {margin} above" if measured.margin else "above",
        "lower": f"at least {margin} below" if measured.margin else "below",
        "level": f"within ±{margin} of",
    }[measured.direction]
    return {
        "paper": paper,
        "claim": claim,
        "rule": f"{metric}: {measured.arm} {needs} {measured.against}{elsewhere}{asked}",
        "judged": any(verdict.word != "not run" for verdict in mine),
        "verdicts": [verdict for verdict in mine if verdict.dataset in studied],
        "absent": [verdict.dataset for verdict in mine if verdict.dataset not in studied],
    }


def _results(paper: Paper, verdicts: Sequence[Verdict]) -> str:
    """The results line of the reproducibility summary, counted from the verdicts."""
    parts = []
    mine = [verdict for verdict in verdicts if verdict.paper == paper.name]
    for dataset in dict.fromkeys(verdict.dataset for verdict in mine):
        counts = Counter(verdict.word for verdict in mine if verdict.dataset == dataset)
        parts.append(f"on {dataset} " + ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word]))
    return "Of the claims below, " + "; ".join(parts) + "."


def _metrics(study: Study) -> list[str]:
    """Columns of the explorer: clean, the suite's attacks, worst, what else was measured, attacks of second looks."""
    attacks = dict.fromkeys(name for dataset in study.datasets for name in study.met(dataset))
    planned = [name for name in _suite(study) if name in attacks]
    records = study.records.values()
    others = dict.fromkeys(name for record in records for name in [*record.best.scenes, *record.best.measures])
    return ["clean", *planned, "worst", *others, *(name for name in attacks if name not in planned)]


def _explorer(study: Study) -> list[dict[str, Any]]:
    """Rows of the explorer: for each arm on each data set its mean, then its seeds, each with its command."""
    metrics = _metrics(study)
    rows = []
    for dataset in study.datasets:
        for arm in study.arms(dataset):
            cells = study.of(dataset, arm)
            values = {metric: accuracy(study, dataset, arm, metric) for metric in metrics}
            numbers = [
                Number(v.text, v.mean, " ".join(_source(study, cell, metric) for cell, record in cells)) if v else None
                for metric, v in values.items()
            ]
            steps = " ".join(stage for cell, _ in cells for stage in cell.stages)
            own = study.command(cells[0][0]) if cells[0][0] in study.beside else f"dvc repro -f -s {steps}"
            rows.append(_row(dataset, arm, f"mean of {len(cells)}", "mean", numbers, own))
            for cell, _ in cells:
                singles = [_single(study, cell, metric) for metric in metrics]
                rows.append(_row(dataset, arm, str(cell.seed), "seed", singles, study.command(cell)))
    return rows


def _row(
    dataset: str, arm: str, seed: str, kind: str, numbers: Sequence[Number | None], command: str
) -> dict[str, Any]:
    return {"dataset": dataset, "arm": arm, "seed": seed, "kind": kind, "numbers": numbers, "command": command}


def _single(study: Study, cell: Cell, metric: str) -> Number | None:
    count = study.records[cell].best.count(metric)
    if count is None:
        return None
    return Number(f"{100 * count.accuracy:.2f}", 100 * count.accuracy, _source(study, cell, metric))


def _source(study: Study, cell: Cell, metric: str) -> str:
    """`reports/records/digits/pgd/0/record.json#best.attacks.pgd-20`: where the count behind a number stands."""
    best = study.records[cell].best
    inside = "attacks." if metric in best.attacks else "measures." if metric in best.measures else ""
    return f"{study.path(cell).relative_to(study.root).as_posix()}#best.{inside}{metric}"


def _provenance(study: Study) -> list[dict[str, Any]]:
    """Who made which cells: cells grouped by commit, versions, hardware and device."""
    groups: dict[str, dict[str, Any]] = {}
    for cell in study.records:
        made = study.provenance(cell)
        if not made:
            continue
        commit = str(made.get("commit") or "no git")[:12] + (" (with changes)" if made.get("dirty") else "")
        versions = ", ".join(f"{name} {version}" for name, version in made.get("versions", {}).items())
        hardware = ", ".join(f"{name} {value}" for name, value in made.get("hardware", {}).items())
        device = f"{made.get('device')}, {made.get('threads')} thread(s)"
        maker = {"commit": commit, "versions": versions, "hardware": hardware, "device": device}
        group = groups.setdefault("|".join(maker.values()), maker | {"cells": 0})
        group["cells"] += 1
    return list(groups.values())


def _altered(study: Study) -> list[Cell]:
    """Cells whose record is no longer the one that the evaluation wrote, by the checksum kept beside it."""
    sums = {cell: study.provenance(cell).get("record_sha256") for cell in study.records}
    return [cell for cell, digest in sums.items() if digest and digest != sha256(study.path(cell))]
