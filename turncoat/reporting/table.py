"""A table of text, written three times: Markdown, LaTeX (booktabs) and CSV."""

import csv
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

from turncoat.files import write_atomic
from turncoat.reporting.measures import BLOCKED

_TEX = {character: f"\\{character}" for character in "&%$#_{}"}
_TEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "’": "'"}
_TEX |= {
    "±": r"$\pm$",
    "−": r"$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "†": r"$\dagger$",
}
_TEX |= {"∞": r"$\infty$", "ℓ": r"$\ell$", "ε": r"$\varepsilon$", "β": r"$\beta$", "λ": r"$\lambda$", "δ": r"$\delta$"}
_TEX |= {
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "§": r"\S{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


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
        """A `table` float with booktabs rules, no wider than the line; needs `\\usepackage{booktabs,graphicx}`."""
        rows = [[_tex(t, (i, j) in self.bold) for j, t in enumerate(row)] for i, row in enumerate(self.rows)]
        body = "\n".join("    " + " & ".join(row) + r" \\" for row in rows)
        header = " & ".join(_tex(text) for text in self.header)
        return (
            "\\begin{table}\n  \\centering\n"
            f"  \\caption{{{_tex(self.legend)}}}\n  \\label{{tab:{self.name}}}\n"
            "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
            f"  \\begin{{tabular}}{{{self.alignment}}}\n    \\toprule\n    {header} \\\\\n    \\midrule\n{body}\n"
            "    \\bottomrule\n  \\end{tabular}}\n\\end{table}\n"
        )

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


def _tex(text: str, bold: bool = False) -> str:
    escaped = re.sub("|".join(map(re.escape, _TEX)), lambda match: _TEX[match[0]], text)
    return f"\\textbf{{{escaped}}}" if bold else escaped
