"""A table of text, written three times: Markdown, LaTeX (booktabs) and CSV."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from turncoat.files import write_atomic
from turncoat.reporting.latex import latex
from turncoat.reporting.measures import BLOCKED


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
        return f"{self.legend}\n\n{body}\n"

    def latex(self) -> str:
        """Tables in booktabs' form as wide as the line; see latex.py."""
        return latex(self)

    def csv(self) -> str:
        """The same cells, comma-separated, without caption and bold."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([self.header, *self.rows])
        return buffer.getvalue()

    @property
    def legend(self) -> str:
        """The caption, and what a mark in the cells means."""
        marked = any(BLOCKED in text for row in self.rows for text in row)
        return self.caption + f".{BLOCKED} a blocking flag lies on it" * marked

    @property
    def alignment(self) -> str:
        """One letter a column, `l` or `r`."""
        return self.align or "l" + "r" * (len(self.header) - 1)

    def save(self, folder: Path) -> None:
        """Write `<name>.md`, `<name>.tex` and `<name>.csv`."""
        for extension, text in (("md", self.markdown()), ("tex", self.latex()), ("csv", self.csv())):
            write_atomic(folder / f"{self.name}.{extension}", text)
