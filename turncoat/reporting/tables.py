"""A table once, written three times: Markdown, LaTeX (booktabs) and CSV.

A table is text cells; the best of a column is bold only where its interval lies above every other arm's.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from turncoat.files import write_atomic
from turncoat.reporting.figures import epochs
from turncoat.reporting.measures import Estimate, accuracy
from turncoat.reporting.study import Study

NOT_RUN = "not run"

_TEX = {character: f"\\{character}" for character in "&%$#_{}"}
_TEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "’": "'"}
_TEX |= {"±": r"$\pm$", "−": r"$-$", "≤": r"$\leq$", "≥": r"$\geq$", "×": r"$\times$", "→": r"$\rightarrow$"}
_TEX |= {"∞": r"$\infty$", "ℓ": r"$\ell$", "ε": r"$\varepsilon$", "β": r"$\beta$", "λ": r"$\lambda$", "δ": r"$\delta$"}
_TEX |= {"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"}


@dataclass(frozen=True)
class Table:
    """Rows of text. `bold` holds (row, column) places; the first column is left-aligned, the others as `align` says."""

    name: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    align: str = ""

    def markdown(self) -> str:
        """A pipe table under its caption."""
        rows = [
            [f"**{t}**" if (i, j) in self.bold else t for j, t in enumerate(row)] for i, row in enumerate(self.rows)
        ]
        lines = [self.header, ["---", *("--:" if a == "r" else "---" for a in self.alignment[1:])], *rows]
        body = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
        return f"{self.caption}\n\n{body}\n"

    def latex(self) -> str:
        """A `table` float with booktabs rules; needs `\\usepackage{booktabs}`."""
        rows = [[_tex(t, (i, j) in self.bold) for j, t in enumerate(row)] for i, row in enumerate(self.rows)]
        body = "\n".join("    " + " & ".join(row) + r" \\" for row in rows)
        header = " & ".join(_tex(text) for text in self.header)
        return (
            "\\begin{table}\n  \\centering\n"
            f"  \\caption{{{_tex(self.caption)}}}\n  \\label{{tab:{self.name}}}\n"
            f"  \\begin{{tabular}}{{{self.alignment}}}\n    \\toprule\n    {header} \\\\\n    \\midrule\n{body}\n"
            "    \\bottomrule\n  \\end{tabular}\n\\end{table}\n"
        )

    def csv(self) -> str:
        """The same cells, comma-separated, without caption and bold."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([self.header, *self.rows])
        return buffer.getvalue()

    @property
    def alignment(self) -> str:
        """One letter a column, `l` or `r`."""
        return self.align or "l" + "r" * (len(self.header) - 1)

    def _emphasised(self, row: int, column: int, text: str) -> str:
        return f"**{text}**" if (row, column) in self.bold else text

    def save(self, folder: Path) -> None:
        """Write `<name>.md`, `<name>.tex` and `<name>.csv`."""
        for extension, text in (("md", self.markdown()), ("tex", self.latex()), ("csv", self.csv())):
            write_atomic(folder / f"{self.name}.{extension}", text)


def _tex(text: str, bold: bool = False) -> str:
    escaped = re.sub("|".join(map(re.escape, _TEX)), lambda match: _TEX[match[0]], text)
    return f"\\textbf{{{escaped}}}" if bold else escaped


def main_table(study: Study, dataset: str, arms: Sequence[str]) -> Table:
    """Every arm against every attack, mean ± half the 95 % interval, in percent; arms without a record say so."""
    metrics = ["clean", *study.attacks(dataset), "worst"]
    found = [[accuracy(study, dataset, arm, metric) for metric in metrics] for arm in arms]
    rows = []
    for arm, values in zip(arms, found, strict=True):
        seeds = len(study.of(dataset, arm))
        rows.append([arm, *(value.text if value else ("–" if seeds else NOT_RUN) for value in values), str(seeds)])
    tops = [best([values[column] for values in found]) for column in range(len(metrics))]
    bold = {(row, column + 1) for column, row in enumerate(tops) if row is not None}
    threat = study.settings.datasets[dataset].threat
    n = max((value.n for line in found for value in line if value), default=0)
    caption = (
        f"{dataset}, {threat.norm} ε = {threat.epsilon:.4g}: accuracy in percent on {n} test images, "
        "mean over seeds ± half of the 95 % interval (Student over seeds; Wilson where there is one seed)"
    )
    return Table(f"main-{dataset}", caption, ["arm", *metrics, "seeds"], rows, frozenset(bold))


def best(column: Sequence[Estimate | None]) -> int | None:
    """The row whose interval lies above all others', or None: a best that the intervals do not support is none."""
    known = [(value, row) for row, value in enumerate(column) if value]
    if len(known) < 2:
        return None
    top, row = max(known, key=lambda pair: pair[0].mean)
    return row if all(top.interval.low > value.interval.high for value, other in known if other != row) else None


def missing_table(study: Study) -> Table:
    """The cells that params.yaml names and the report lacks, each with the reason and the command that makes it."""
    rows = [[str(cell), why, cell.command] for cell, why in study.missing.items()]
    caption = f"{len(rows)} of {len(rows) + len(study.records)} cells are not run"
    return Table("missing", caption, ["cell", "why", "command"], rows, align="lll")


def seeds_table(study: Study, dataset: str) -> Table:
    """Every seed by itself: the numbers behind the means."""
    metrics = ["clean", *study.attacks(dataset), "worst"]
    rows = []
    for arm in study.arms(dataset):
        for cell, record in study.of(dataset, arm):
            counts = [record.best.count(metric) for metric in metrics]
            rows.append([arm, str(cell.seed), *(f"{100 * count.accuracy:.2f}" if count else "–" for count in counts)])
    return Table(f"seeds-{dataset}", f"{dataset}: every seed, accuracy in percent", ["arm", "seed", *metrics], rows)


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


def write(study: Study, folder: Path) -> list[Table]:
    """Save the tables that every study has: main and per-seed for each data set, and the missing cells."""
    arms = study.settings.study.arms
    tables = [main_table(study, dataset, arms) for dataset in study.datasets]
    tables += [seeds_table(study, dataset) for dataset in study.datasets]
    tables.append(missing_table(study))
    for table in tables:
        table.save(folder)
    return tables
