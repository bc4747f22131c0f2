"""The whole report from the files of a study: everything that the report stage writes."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from turncoat.files import write_atomic, write_json
from turncoat.reporting import beside, drawing, page, robustbench, tables
from turncoat.reporting.chapter import Chapter
from turncoat.reporting.claims import Paper
from turncoat.reporting.measures import summary
from turncoat.reporting.study import Resolve, Study
from turncoat.reporting.verdicts import DECIDED, WORDS, Verdict, judge_all
from turncoat.settings import Settings

MADE = ("tables", "figures", "curves", "robustbench")


def build(
    settings: Settings, resolve: Resolve, chapters: Sequence[Chapter], root: Path | str = ".", kept: bool = False
) -> tuple[Study, list[Verdict]]:
    """Read the study below `root` and write its report into `reports/` there; the same records give the same bytes.

    Args:
        chapters: the papers', in the order of the page.
        kept: the records are of a kept study (`study.load`).

    Raises:
        TurncoatError: a record or its examples cannot be read or do not belong together.
    """
    root = Path(root)
    papers = [chapter.paper for chapter in chapters]
    study = beside.load(settings, resolve, root, kept)
    verdicts = judge_all(study, papers)

    reports = root / "reports"
    for name in MADE:  # nothing of an earlier study may stay behind
        shutil.rmtree(reports / name, ignore_errors=True)
        (reports / name).mkdir(parents=True)
    made = tables.write(study, chapters, verdicts, reports / "tables")
    drawn = drawing.draw(study, chapters, verdicts, reports / "figures")
    write_atomic(reports / "curves" / "training.csv", tables.training_curves(study))
    robustbench.write(study, papers, reports / "robustbench")
    write_json(reports / "summary.json", summary(study))
    write_json(reports / "headlines.json", headlines(papers, verdicts))
    write_json(reports / "verdicts.json", [_plain(verdict) for verdict in verdicts])
    write_atomic(reports / "report.html", page.render(study, chapters, verdicts, made, drawn))
    return study, verdicts


def headlines(papers: Sequence[Paper], verdicts: Sequence[Verdict]) -> dict[str, dict[str, float]]:
    """DVC's metrics: {data set: {paper: effect of its first headline in points, ..., decided: number of claims}}.

    Few, because `dvc exp show` makes a column of each; a claim that was not run has none.
    """
    first = {next((claim.id for claim in paper.claims if claim.kind == "headline"), ""): paper.name for paper in papers}
    table: dict[str, dict[str, float]] = {}
    for verdict in verdicts:
        if verdict.effect is not None:
            row = table.setdefault(verdict.dataset, {"decided": 0})
            row["decided"] += verdict.word in DECIDED
            if verdict.claim in first:
                row[first[verdict.claim]] = round(verdict.effect, 2)
    return {dataset: dict(sorted(row.items(), key=lambda item: item[0] == "decided")) for dataset, row in table.items()}


def tally(verdicts: Sequence[Verdict]) -> str:
    """`3 direction holds, 1 inconclusive`: the verdicts on what was studied, counted; claims not run are left out."""
    counts = Counter(verdict.word for verdict in verdicts)
    return ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word] and word != "not run") or "no verdict"


def _plain(verdict: Verdict) -> dict[str, Any]:
    """The verdict as JSON holds it: numbers rounded, so that a reader sees no false digits."""
    plain = asdict(verdict)
    for name in ("effect", "p_value", "p_holm"):
        if plain[name] is not None:
            plain[name] = float(f"{plain[name]:.4g}")
    plain["interval"] = [round(bound, 3) for bound in verdict.interval] if verdict.interval else None
    plain["seeds"] = list(verdict.seeds)
    plain["cells"] = [str(cell) for cell in verdict.cells]
    return plain
