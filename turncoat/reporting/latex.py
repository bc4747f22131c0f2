"""A table as LaTeX that fits the line in a size one can read: wide ones stacked, words wrapped, long ones over pages.

Needs `\\usepackage{booktabs,array,longtable}`.
"""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from turncoat.reporting.table import Table

LINE = 340.0  # points of a line of `article`, 345, with a little room
LETTER = 4.6  # points of an average letter in \footnotesize
BETWEEN = 6.0  # points between two columns
WORDS = 26  # letters from which a column is words, which wrap
NARROW = 110.0  # points, too few for a column of sentences
HEAD = 9  # letters from which a head does
PAGE = 40  # lines of a table that fit a page

_TEX = {character: f"\\{character}" for character in "&%$#_{}"}
_TEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "’": "'"}
_TEX |= {"“": "``", "”": "''", "\u00a0": "~", "§": r"\S{}", "|": r"\textbar{}"}
_TEX |= {"<": r"\textless{}", ">": r"\textgreater{}"}
_MATHS = {"±": r"\pm", "−": "-", "≤": r"\leq", "≥": r"\geq", "×": r"\times", "→": r"\rightarrow", "†": r"\dagger"}
_MATHS |= {"‡": r"\ddagger", "∞": r"\infty", "ℓ": r"\ell", "ε": r"\varepsilon", "β": r"\beta", "λ": r"\lambda"}
_TEX |= {character: f"${name}$" for character, name in (_MATHS | {"δ": r"\delta"}).items()}


def latex(table: "Table") -> str:
    """A `table` float, or a `longtable` where the rows do not fit a page; no font smaller than \\footnotesize."""
    widths = [_width(table, column) for column in range(len(table.header))]
    blocks = _blocks(table, widths)
    long = sum(_lines(table, block, widths) + 3 for block in blocks) > PAGE
    caption = f"\\caption{{{escaped(table.legend)}}}\\label{{tab:{table.name}}}"
    setting = f"\\footnotesize\\setlength{{\\tabcolsep}}{{{BETWEEN / 2:g}pt}}"
    parts = []
    for place, block in enumerate(blocks):
        above = block[0] if _above(table, block, widths) else None
        block = [column for column in block if column != above]
        fit = _fitted(table, block, widths)
        columns = "".join(_column(table, column, fit[column]) for column in block)
        head = " & ".join(_head(table, column, fit[column]) for column in block)
        wide = f"    \\multicolumn{{{len(block)}}}{{@{{}}p{{{LINE:g}pt}}@{{}}}}"
        lines = []
        for i, row in enumerate(table.rows):
            if above is not None:
                lines.append(f"{wide}{{{escaped(row[above])}}} \\\\*")
            lines.append("    " + " & ".join(escaped(row[j], (i, j) in table.bold) for j in block) + r" \\")
        body = "\n".join(lines)
        if long:
            title = caption if not place else f"\\caption[]{{{escaped(table.name)}, continued}}"
            parts.append(
                f"\\begin{{longtable}}{{{columns}}}\n    {title} \\\\\n    \\toprule\n    {head} \\\\\n    \\midrule\n"
                f"    \\endhead\n{body}\n    \\bottomrule\n\\end{{longtable}}"
            )
        else:
            parts.append(
                f"  \\begin{{tabular}}{{{columns}}}\n    \\toprule\n    {head} \\\\\n    \\midrule\n{body}\n"
                "    \\bottomrule\n  \\end{tabular}"
            )
    if long:
        return f"{{{setting}\n" + "\n".join(parts) + "\n}\n"
    stacked = "\n\n  \\smallskip\n".join(parts)
    return f"\\begin{{table}}\n  \\centering\n  {caption}\n  {setting}\n{stacked}\n\\end{{table}}\n"


def escaped(text: str, bold: bool = False) -> str:
    """The text with every character that means something to TeX made harmless."""
    plain = re.sub("|".join(map(re.escape, _TEX)), lambda match: _TEX[match[0]], text)
    return f"\\textbf{{{plain}}}" if bold else plain


def _width(table: "Table", column: int) -> float:
    """Points that a column takes unless it wraps; of a head, its longest line."""
    cells = max((len(row[column]) for row in table.rows), default=1)
    head = max(len(line) for line in _broken(table.header[column], cells))
    return LETTER * max(cells, head) + BETWEEN


def _broken(head: str, cells: int) -> list[str]:
    return textwrap.wrap(head, max(HEAD, cells), break_long_words=False) or [""]


def _wraps(table: "Table", column: int) -> bool:
    """Whether it is a column of words."""
    return table.alignment[column] == "l" and max((len(row[column]) for row in table.rows), default=0) > WORDS


def _blocks(table: "Table", widths: Sequence[float]) -> list[list[int]]:
    """The columns of each of the tables that stand one below the other; the first columns of words lead each."""
    keys = [j for j in range(len(widths)) if set(table.alignment[: j + 1]) == {"l"}]
    rest = [j for j in range(len(widths)) if j not in keys]
    if not rest or any(_wraps(table, column) for column in range(len(widths))):
        return [[*keys, *rest]]
    room = max(LINE - sum(widths[j] for j in keys), max(widths[j] for j in rest))
    blocks: list[list[int]] = [[]]
    for j in rest:
        if blocks[-1] and sum(widths[k] for k in [*blocks[-1], j]) > room:
            blocks.append([])
        blocks[-1].append(j)
    even = -(-len(rest) // len(blocks))
    spread = [rest[start : start + even] for start in range(0, len(rest), even)]
    fits = all(sum(widths[j] for j in block) <= room for block in spread)
    return [[*keys, *block] for block in (spread if fits else blocks)]


def _fitted(table: "Table", block: Iterable[int], widths: Sequence[float]) -> dict[int, float]:
    """Points of each column: columns of words share what the others leave, each with room for its longest word."""
    columns = list(block)
    wrapping = [j for j in columns if _wraps(table, j)]
    room = LINE - sum(widths[j] for j in columns if j not in wrapping)
    least = {j: LETTER * max(len(word) for row in table.rows for word in row[j].split() or [""]) for j in wrapping}
    share = {j: room * widths[j] / sum(widths[k] for k in wrapping) - BETWEEN for j in wrapping}
    return {j: max(least[j], share[j]) if j in wrapping else widths[j] for j in columns}


def _above(table: "Table", block: Sequence[int], widths: Sequence[float]) -> bool:
    """Whether the first column, of words, gets lines of its own above the others: they leave it too little room."""
    rest = LINE - sum(widths[column] for column in block[1:])
    return len(block) > 1 and _wraps(table, block[0]) and rest < NARROW


def _column(table: "Table", column: int, width: float) -> str:
    if _wraps(table, column):
        return f">{{\\raggedright\\arraybackslash}}p{{{width:.0f}pt}}"
    return table.alignment[column]


def _head(table: "Table", column: int, width: float) -> str:
    """The head in as many lines as it needs to be no wider than its column."""
    lines = _broken(table.header[column], max((len(row[column]) for row in table.rows), default=1))
    if len(lines) == 1 or _wraps(table, column):
        return escaped(table.header[column])
    stacked = r" \\ ".join(map(escaped, lines))
    return f"\\shortstack[{table.alignment[column]}]{{{stacked}}}"


def _lines(table: "Table", block: Sequence[int], widths: Sequence[float]) -> int:
    """Lines of text that the rows take."""
    fit: Mapping[int, float] = _fitted(table, block, widths)
    wrapping = [j for j in block if _wraps(table, j)]
    if _above(table, block, widths):
        return 3 * len(table.rows)
    return sum(max([1, *(-int(-LETTER * len(row[j]) // fit[j]) for j in wrapping)]) for row in table.rows)
