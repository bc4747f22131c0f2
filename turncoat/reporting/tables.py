"""The study's tables: main, per seed, per paper (reported beside measured), cost, verdicts, missing cells.

The best of a column is bold only where its interval lies above every other arm's.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from turncoat.reporting import tuning
from turncoat.reporting.chapter import Chapter
from turncoat.reporting.claims import Paper, ReportedValue
from turncoat.reporting.measures import BLOCKED, NORMS, Estimate, accuracy, epochs, mean, radius, training_passes
from turncoat.reporting.statistics import MOST_SEEDS, POWER
from turncoat.reporting.study import Study
from turncoat.reporting.table import Table
from turncoat.reporting.verdicts import Verdict

NOT_RUN = "not run"
ALONE = " §"  # beside a p-value below 0.05 that Holm's adjustment takes above it
PASSES = "passes (1000)"
PASSES_MEAN = "forward + backward passes, in thousands of images"


def main_table(study: Study, dataset: str, arms: Sequence[str]) -> Table:
    """Every arm against every attack, mean ± half the 95 % interval, in percent; arms without a record say so."""
    metrics = ["clean", "worst", *study.attacks(dataset)]
    if study.task(dataset) != "classification":  # one attack, and several measures
        metrics = ["clean", *study.attacks(dataset), *_other_measures(study, dataset)]
    found = [[accuracy(study, dataset, arm, metric) for metric in metrics] for arm in arms]
    rows = []
    for arm, values in zip(arms, found, strict=True):
        seeds = len(study.of(dataset, arm))
        shown = (value.text if value else ("–" if seeds else NOT_RUN) for value in values)
        rows.append([arm, *shown, str(seeds)])
    tops = [best([values[column] for values in found]) for column in range(len(metrics))]
    bold = {(row, column + 1) for column, row in enumerate(tops) if row is not None}
    threat = study.settings.datasets[dataset].threat
    n = max((value.n for line in found for value in line if value), default=0)
    caption = (
        f"{dataset}, {NORMS[threat.norm]} ε = {radius(threat.epsilon)}: {study.measure(dataset)} in percent on {n} "
        "test images, mean over seeds ± half of the 95 % interval over seeds and images (one seed: over images alone); "
        "bold: above all others, intervals apart"
    )
    return Table(f"main-{dataset}", caption, ["arm", *metrics, "seeds"], rows, frozenset(bold))


def _other_measures(study: Study, dataset: str) -> list[str]:
    """What was measured besides `clean` and the attacks."""
    records = [record for arm in study.arms(dataset) for _, record in study.of(dataset, arm)]
    return list(dict.fromkeys(name for record in records for name in record.best.measures))


def passes(study: Study, dataset: str, arm: str) -> str:
    """`120 + 110`: forward and backward passes of an arm's whole training, in thousands of images, mean over seeds."""
    costs = [record.cost.training for _, record in study.of(dataset, arm)]
    if not costs:
        return "–"
    forward, backward = (mean([cost.images * getattr(cost, way) for cost in costs]) for way in ("forward", "backward"))
    return f"{forward / 1000:,.0f} + {backward / 1000:,.0f}"


def best(column: Sequence[Estimate | None]) -> int | None:
    """The row whose interval lies above all others', or None.

    None is best without intervals, under a flag, or where most rows have no value.
    """
    known = [(value, row) for row, value in enumerate(column) if value]
    alone = any(len(value.seeds) < 2 for value, _ in known)  # one seed says nothing of the next
    if alone or len(known) < max(2, len(column) / 2):
        return None
    top, row = max(known, key=lambda pair: pair[0].mean)
    apart = all(top.interval.low > value.interval.high for value, other in known if other != row)
    return row if apart and not top.blocked else None


def missing_table(study: Study) -> Table:
    """The cells that params.yaml names and the report lacks, each with the reason and the command that makes it."""
    rows = [[str(cell), why, study.command(cell)] for cell, why in study.missing.items()]
    caption = f"{len(rows)} of {len(rows) + len(study.records)} cells are not run"
    return Table("missing", caption, ["cell", "why", "command"], rows, align="lll")


def seeds_table(study: Study, dataset: str) -> Table:
    """Every seed by itself: the numbers behind the means."""
    metrics = ["clean", *study.met(dataset), "worst"]
    rows = []
    for arm in study.arms(dataset):
        for cell, record in study.of(dataset, arm):
            counts = [record.best.count(metric) for metric in metrics]
            rows.append([arm, str(cell.seed), *(f"{100 * count.accuracy:.2f}" if count else "–" for count in counts)])
    return Table(
        f"seeds-{dataset}",
        f"{dataset}: every seed, {study.measure(dataset)} in percent",
        ["arm", "seed", *metrics],
        rows,
    )


def training_curves(study: Study) -> str:
    """CSV for `dvc plots`: one row an epoch with a look at validation, the mean over seeds, in percent."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["dataset", "arm", "measure", "epoch", "accuracy"])
    for dataset in study.datasets:
        for arm in study.arms(dataset):
            for column in ("validation_clean", "validation_robust"):
                for epoch, value in epochs(study, dataset, arm, column):
                    writer.writerow([dataset, arm, column.removeprefix("validation_"), epoch, f"{value:.3f}"])
    return buffer.getvalue()


def checkpoints_table(study: Study, dataset: str) -> Table:
    """The checkpoint that validation chose beside the last one: how much the choice matters."""
    metrics = [name for name in ("clean", "pgd-20") if name == "clean" or name in study.attacks(dataset)]
    arms = study.arms(dataset)
    columns = {
        f"{metric}, {which}": [accuracy(study, dataset, arm, metric, which) for arm in arms]
        for metric in metrics
        for which in ("best", "last")
    }
    # the last weights of masks and boxes meet clean images alone
    columns = {name: values for name, values in columns.items() if any(values)}
    rows = []
    for place, arm in enumerate(arms):
        epochs_ = [str(record.validation.get("best_epoch", "–")) for _, record in study.of(dataset, arm)]
        values = [values[place] for values in columns.values()]
        rows.append([arm, " ".join(epochs_), *(value.text if value else "–" for value in values)])
    header = ["arm", "best epochs", *columns]
    return Table(f"checkpoints-{dataset}", f"{dataset}: best (chosen on validation) and last checkpoint", header, rows)


def cost_table(study: Study, dataset: str) -> Table:
    """Training and evaluation in passes, which no machine changes, with size and calibration of each arm."""
    header = ["arm", "forward", "backward", "total (1000)", "evaluation", "parameters", "ECE (%)"]
    rows = []
    for arm in study.arms(dataset):
        records = [record for _, record in study.of(dataset, arm)]
        costs = [record.cost for record in records]
        errors = [100 * record.best.calibration.ece for record in records if record.best.calibration]
        rows.append(
            [
                arm,
                f"{mean([cost.training.forward for cost in costs]):.1f}",
                f"{mean([cost.training.backward for cost in costs]):.1f}",
                f"{mean([training_passes(record) for record in records]) / 1000:,.0f}",
                f"{mean([cost.evaluation.forward + 2 * cost.evaluation.backward for cost in costs]):,.0f}",
                f"{costs[0].parameters:,}",
                f"{mean(errors):.1f}" if errors else "–",
            ]
        )
    caption = (
        f"{dataset}: training passes per image and epoch, all training in thousands of forward passes (a backward pass "
        "counts as two), evaluation per test image likewise, network size, expected calibration error on clean images"
    )
    return Table(f"cost-{dataset}", caption, header, rows)


def paper_table(study: Study, paper: Paper, dataset: str) -> Table:
    """A paper's numbers beside ours, method by method: reported (in the paper's setting) | measured (on `dataset`)."""
    reported = {(value.arm, value.metric): value.value for value in paper.reported}
    ran = study.arms(dataset, list(paper.arms))
    arms = [arm for arm in paper.arms if arm in ran or any(arm == of for of, _ in reported)]
    claimed = ("shifts" if c.measured.metric.startswith("shifts") else c.measured.metric for c in paper.claims)
    wanted = _in_order(study, ["clean", "pgd-20", "autoattack", "worst", *(metric for _, metric in reported), *claimed])
    there = {metric for arm in ran for metric in wanted if accuracy(study, dataset, arm, metric)}
    header, columns = ["arm"], []
    bold = set()
    for metric in wanted:
        if any(metric == of for _, of in reported):
            header.append(f"{metric}, reported")
            columns.append([f"{reported[arm, metric]:.2f}" if (arm, metric) in reported else "–" for arm in arms])
        if metric in there:
            found = [accuracy(study, dataset, arm, metric) for arm in arms]
            header.append(f"{metric}, measured")
            if (top := best(found)) is not None:
                bold.add((top, len(columns) + 1))
            columns.append(
                [
                    value.text if value else (NOT_RUN if arm not in ran else "–")
                    for arm, value in zip(arms, found, strict=True)
                ]
            )
    header.append(PASSES)
    columns.append([passes(study, dataset, arm) for arm in arms])
    settings = "; ".join(dict.fromkeys(value.setting for value in paper.reported))
    caption = (
        f"{paper.short}: {study.measure(dataset)} in percent. Measured on {dataset}, with training's {PASSES_MEAN}. "
        + (f"Reported: {settings}" if settings else "No accuracy of the paper's could be read")
    )
    rows = [list(row) for row in zip(arms, *columns, strict=True)]
    return Table(f"{paper.name}-{dataset}", caption, header, rows, frozenset(bold))


def beside(paper: Paper, table: Table, dataset: str) -> Table | None:
    """Of a paper's table what was both reported and measured; None where no number was. The main table has the rest."""
    reported = {(value.arm, value.metric): value for value in paper.reported}
    arms = [row[0] for row in table.rows]
    kept: dict[tuple[int, int], ReportedValue] = {}
    for j, head in enumerate(table.header):
        for i, row in enumerate(table.rows):
            value = reported.get((row[0], head.removesuffix(", measured")))
            if value and head.endswith(", measured") and row[j] not in ("–", NOT_RUN):
                kept[i, j] = value
    if not kept:
        return None
    rows = [
        [arms[i], value.metric, value.setting, f"{value.value:.2f}", table.rows[i][j]]
        for (i, j), value in sorted(kept.items(), key=lambda entry: entry[0])
    ]
    caption = f"{paper.short}: accuracy in percent, as reported and as measured on {dataset}"
    header = ["arm", "measure", "reported for", "reported", "measured"]
    return Table(f"{table.name}-beside", caption, header, rows, align="lllrr")


def _in_order(study: Study, metrics: Sequence[str]) -> list[str]:
    """Each metric once: clean, other measures, the suite's attacks, other attacks, the worst case."""
    suite = [
        name for own in dict.fromkeys(map(study.suite, study.datasets)) for name in study.settings.suites[own].attacks
    ]
    rank = {"clean": -2, "worst": len(suite) + 1} | {name: place for place, name in enumerate(suite)}
    attacks = {value for value in metrics if value.startswith(("pgd", "fgsm", "margin", "autoattack"))}
    return sorted(dict.fromkeys(metrics), key=lambda name: rank.get(name, len(suite) if name in attacks else -1))


def verdict_table(papers: Sequence[Paper], verdicts: Sequence[Verdict], dataset: str) -> Table:
    """Every claim with an effect on the data set, in words; how many have none, and why, the page says."""
    claims = {claim.id: claim for paper in papers for claim in paper.claims}
    rows = []
    for verdict in verdicts:
        if verdict.dataset == dataset and verdict.effect is not None:
            reported = claims[verdict.claim].reported
            rows.append(
                [
                    claims[verdict.claim].says,
                    verdict.word + ", tuned" * verdict.tuned + ", our reading" * verdict.our_reading,
                    points(verdict.effect) + BLOCKED * bool(verdict.note),
                    f"[{points(verdict.interval.low)}, {points(verdict.interval.high)}]" if verdict.interval else "–",
                    p_text(verdict.p_value),
                    p_text(verdict.p_holm) + ALONE * verdict.alone,
                    seeds_text(verdict),
                    "–" if reported == "unavailable" else points(reported.points),
                ]
            )
    tuned = any(verdict.tuned for verdict in verdicts if verdict.dataset == dataset)
    caption = (
        f"Verdicts on {dataset}: effect in percentage points with its 95 % interval over seeds and images, p of the "
        "same statistic, alone and after Holm for all claims tested, how many seeds would decide what is inconclusive "
        f"(power {POWER:g}), and the effect that was reported"
    )
    if rest := sum(verdict.dataset == dataset and verdict.effect is None for verdict in verdicts):
        caption += f"; {rest} more claims are not run"
    if any(ALONE in text for row in rows for text in row):
        caption += f".{ALONE} the direction holds alone, not after Holm"
    if tuned:
        caption += ". Tuned: of both arms at the setting that as many trials on the validation split found"
    return Table(
        f"verdicts-{dataset}",
        caption,
        ["claim", "verdict", "effect", "interval", "p", "p (Holm)", "seeds needed", "reported"],
        rows,
        align="llrrrrrr",
    )


def seeds_text(verdict: Verdict) -> str:
    """How many seeds would decide what is inconclusive; `> 1,000` where no such number would."""
    if verdict.word != "inconclusive":
        return "–"
    return f"{verdict.seeds_needed}" if verdict.seeds_needed else f"> {MOST_SEEDS:,}"


def points(value: float | None) -> str:
    """`+1.25`, `−0.30`: percentage points with their sign."""
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


def p_text(value: float | None) -> str:
    """A p-value to two digits, or `< 0.001`."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.2g}"


def write(study: Study, chapters: Sequence[Chapter], verdicts: Sequence[Verdict], folder: Path) -> dict[str, Table]:
    """Save all tables; returns them by name."""
    papers = [chapter.paper for chapter in chapters]
    tables = [missing_table(study)]
    for dataset in study.datasets:
        tables.append(main_table(study, dataset, study.settings.study.arms_on(dataset)))
        tables += [make(study, dataset) for make in (seeds_table, checkpoints_table, cost_table)]
        tables += [found for found in [tuning.table(study, dataset)] if found]
        for chapter in chapters:
            paper = chapter.paper
            if arms := study.arms_of(dataset, paper.name, list(paper.arms)):
                tables.append(paper_table(study, paper, dataset))
                tables += [table for make in chapter.tables.values() if (table := make(study, dataset, arms))]
    tables += [verdict_table(papers, verdicts, dataset) for dataset in study.settings.study.every]
    for table in tables:
        table.save(folder)
    return {table.name: table for table in tables}
