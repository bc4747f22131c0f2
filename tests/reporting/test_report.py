"""The built report: complete, traceable, self-contained, the same bytes twice."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.defaults import DEFAULTS
from tests.reporting import synthetic
from tests.reporting.conftest import ARMS, build
from turncoat.papers import chapters
from turncoat.reading import read_yaml
from turncoat.reporting import report
from turncoat.reporting.measures import Estimate
from turncoat.reporting.statistics import Interval
from turncoat.reporting.style import COLOURS, COLUMN, MARKERS, WIDE, WORD, canvas, legend, looks, paper, short
from turncoat.reporting.table import Table
from turncoat.reporting.tables import best, paper_table

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page(built: Path) -> str:
    return (built / "reports/report.html").read_text()


def checksums(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "records" not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_builds_are_byte_identical(built: Path, tmp_path: Path) -> None:
    """Built anew in another folder, from the same records."""
    for name in ("models", "data", "reports/records"):
        shutil.copytree(built / name, tmp_path / name)
    build(tmp_path)
    first, second = checksums(built / "reports"), checksums(tmp_path / "reports")
    assert len(first) > 60
    assert {name for name in first if first[name] != second.get(name)} == set()


@pytest.mark.fault(27, "a report of fewer arms and seeds over a larger one", "nothing of the larger is left")
def test_a_smaller_study_leaves_nothing_of_the_larger_and_tells_a_changed_record(built: Path, tmp_path: Path) -> None:
    for name in ("models", "data", "reports"):
        shutil.copytree(built / name, tmp_path / name)
    synthetic.edit(tmp_path, "digits/mart/0", lambda record: record["best"]["clean"].update(correct=1))
    report.build(synthetic.settings(arms=["pgd", "mart"], seeds=(0,)), synthetic.resolve, chapters.load(), tmp_path)
    reports = tmp_path / "reports"
    text = (reports / "report.html").read_text()
    assert "2 of 2 run" in text
    assert not [path for name in report.MADE for path in (reports / name).rglob("*cifar10*")]
    assert set(json.loads((reports / "summary.json").read_text())["digits"]) == {"pgd", "mart"}
    assert "the records of digits/mart/0 are not the ones that the evaluation wrote" in text
    assert "Changed after evaluation" not in (built / "reports/report.html").read_text()


# ------------------------------------------------------------------------------------------------------- the page


class References(HTMLParser):
    """Collects ids, and everything that a browser would load or a reader follow."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.alts: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "a":
            self.links.append(str(given["href"]))
        elif given.get("src") or given.get("href"):
            self.loads.append(str(given.get("src") or given.get("href")))
        if tag == "img":
            self.alts.append(given.get("alt"))


def test_the_page_is_self_contained(page: str) -> None:
    found = References()
    found.feed(page)
    assert all(address.startswith("data:") for address in found.loads)
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|<link[^>]+stylesheet", page)
    assert len(page.encode()) < 10_000_000
    assert len(found.alts) > 10
    assert all(alt and len(alt) > 40 for alt in found.alts)
    assert len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)


def recomputed(root: Path, file: str, field: str) -> float:
    """Percent, from the counts at a field such as `best.attacks.pgd-20` of a record."""
    _, kind, *name = field.split(".", 2)
    part = json.loads((root / file).read_text())["best"][kind]
    rows = part if isinstance(part, list) else [part[name[0]] if name else part]
    right = sum(row["n"] - row["reached"] if "reached" in row else row["correct"] for row in rows)
    return 100.0 * right / sum(row["n"] for row in rows)


def test_every_number_of_the_explorer_is_its_records(page: str, built: Path) -> None:
    """Recomputes each number from the fields that it names."""
    cells = re.findall(r'data-value="([\d.]+)" data-source="([^"]+)"[^>]*>([\d.]+)( ± [\d.]+)?(?: ‡)?<', page)
    assert len(cells) > 100
    for value, sources, shown, half in cells:
        rates = [recomputed(built, *source.split("#")) for source in sources.split()]
        mean = sum(rates) / len(rates)
        assert float(value) == pytest.approx(mean, abs=1e-5)
        assert float(shown) == pytest.approx(mean, abs=0.0501 if half else 0.00501)


@pytest.mark.parametrize(("dataset", "seeds"), [("digits", (0, 1, 2)), ("cifar10", (0,))])
def test_every_number_of_the_tables_is_its_records(
    built: Path, page: str, dataset: str, seeds: tuple[int, ...]
) -> None:
    """Main, checkpoints and a paper's own: each mean and interval anew from the records, and it stands on the page."""

    def records(arm: str) -> list[dict[str, Any]]:
        paths = [built / f"reports/records/{dataset}/{arm}/{seed}/record.json" for seed in seeds]
        return [json.loads(path.read_text()) for path in paths if path.exists()]

    def outcomes(arm: str, metric: str) -> Any:
        folders = [built / f"reports/records/{dataset}/{arm}/{seed}" for seed in seeds]
        kept = [np.load(folder / "examples.npz") for folder in folders if (folder / "record.json").exists()]
        names = ["clean", *synthetic.ATTACKS] if metric == "worst" else [metric]
        return np.array([np.logical_and.reduce([arrays[name] for name in names]) for arrays in kept])

    checked = 0
    for name in ("main", "checkpoints", "mart"):
        for row in csv.DictReader((built / f"reports/tables/{name}-{dataset}.csv").read_text().splitlines()):
            for head, text in row.items():
                metric, _, kind = head.partition(", ")
                if "±" not in text or kind == "reported":
                    continue
                parts = [record["last" if kind == "last" else "best"] for record in records(row["arm"])]
                counts = [part.get(metric) or part["attacks"][metric] for part in parts]
                rates = [count["correct"] / count["n"] for count in counts]
                kept = None if kind == "last" else outcomes(row["arm"], metric)
                mean, half = 100 * sum(rates) / len(rates), 100 * synthetic.half_by_hand(rates, counts[0]["n"], kept)
                assert [float(number) for number in text.split(" ± ")] == pytest.approx([mean, half], abs=0.0501), head
                assert f">{text}<" in page
                checked += 1
    assert checked > 50
    for row in csv.DictReader((built / f"reports/tables/seeds-{dataset}.csv").read_text().splitlines()):
        best = json.loads((built / f"reports/records/{dataset}/{row['arm']}/{row['seed']}/record.json").read_text())[
            "best"
        ]
        for metric in ("clean", "fgsm", "pgd-20", "worst"):
            count = best.get(metric) or best["attacks"][metric]
            assert float(row[metric]) == pytest.approx(100 * count["correct"] / count["n"], abs=0.00501)


def test_every_arm_of_a_table_leads_to_the_command_that_makes_it(page: str) -> None:
    linked = set(re.findall(r'<a href="#(cell-[^"]+)">', page))
    rows = dict(re.findall(r'<tr[^>]* id="(cell-[^"]+)">.*?<code class="command"[^>]*>([^<]+)</code>', page, re.DOTALL))
    assert linked == set(rows)
    assert rows["cell-cifar10-pgd"] == "dvc repro -f -s finetune@cifar10-pgd-0 evaluate@cifar10-pgd-0"
    assert rows["cell-digits-mart"].count("evaluate@digits-mart-") == 3


def test_headlines_give_the_effects_of_their_verdicts(page: str, built: Path) -> None:
    headlines = page.split("The headline claims")[1].split("</section>")[0]
    dense = re.search(r'href="#advamd-segmentation">.*?</li>', headlines, re.DOTALL)
    assert dense
    assert "no data set for segmentation in this study" in dense[0]
    told = 0
    for verdict in json.loads((built / "reports/verdicts.json").read_text()):
        line = re.search(rf'href="#{verdict["claim"]}">.*?</li>', headlines, re.DOTALL)
        if line and verdict["effect"] is not None:
            low, high = verdict["interval"]
            said = f"on {verdict['dataset']}: {verdict['effect']:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
            assert said in line[0]
            told += 1
    assert told >= 1


def test_a_claim_that_was_not_run_is_folded_away_with_its_reason(page: str) -> None:
    section = page.split('<section id="mart"')[1].split("</section>")[0]
    shown, folded = section.split('<details class="unrun">')
    assert 'id="mart-over-pgd"' in shown
    assert 'id="mart-autoattack"' in folded
    assert "The suite has no measure named autoattack" in folded
    assert re.search(r"<summary>\d+ more claims not run: what each needs</summary>", folded)


def test_every_effect_on_the_page_is_its_records(page: str, built: Path) -> None:
    stated = {claim["id"]: claim for claim in read_yaml(ROOT / "turncoat/papers/mart/claims.yaml")["claims"]}
    checked = 0
    for verdict in json.loads((built / "reports/verdicts.json").read_text()):
        if verdict["effect"] is None:
            continue
        measured = stated[verdict["claim"]]["measured"]
        rates: dict[str, list[float]] = {measured["arm"]: [], measured["against"]: []}
        for cell in verdict["cells"]:
            best = json.loads((built / f"reports/records/{cell}/record.json").read_text())["best"]
            count = best.get(measured["metric"]) or best["attacks"][measured["metric"]]
            rates[cell.split("/")[1]].append(100 * count["correct"] / count["n"])
        left, right = (sum(rates[arm]) / len(rates[arm]) for arm in (measured["arm"], measured["against"]))
        assert verdict["effect"] == pytest.approx(left - right, rel=1e-3)
        article = page.split(f'id="{verdict["claim"]}"')[1].split("</article>")[0]
        assert f"on {verdict['dataset']}</strong>: {left - right:+.2f} points".replace("-", "−") in article
        checked += 1
    assert checked >= 5


def test_missing_cells_are_listed_with_their_command(page: str) -> None:
    section = page.split('id="missing"')[1].split("</section>")[0]
    assert "11 of 30 cells are not run" in section
    for cell in ("digits-trades-2", "cifar10-mart-1"):
        assert f"dvc repro -f -s finetune@{cell} evaluate@{cell}" in section


# ---------------------------------------------------------------------------------------------- tables and figures


def test_tables_are_sound_latex(built: Path) -> None:
    """Braces and environments balance, every row has the columns that the head has, no bare special character."""
    files = sorted((built / "reports/tables").glob("*.tex"))
    assert len(files) > 8
    for path in files:
        text = path.read_text()
        assert "resizebox" not in text
        bare = re.sub(r"\\[\\&%$#_{}]", "", text)
        assert bare.count("{") == bare.count("}")
        open_, close = (re.findall(rf"\\{end}{{(\w+)}}", text) for end in ("begin", "end"))
        assert sorted(open_) == sorted(close)
        parts = re.findall(r"\\begin{(?:tabular|longtable)}(.*?)\\end{", text, re.DOTALL)
        assert parts
        for part in parts:
            assert [part.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
            spec = part.splitlines()[0].replace(r">{\raggedright\arraybackslash}", "")
            columns = len(re.sub(r"p{\d+pt}", "p", spec.strip()[1:-1]))
            rows = re.findall(r"^    (.*?) \\\\\*?$", part, re.MULTILINE)
            for row in rows:
                if row.startswith((r"\multicolumn", r"\caption")):
                    continue
                assert len(re.split(r"(?<!\\)&", row)) == columns, (path.name, row)
                assert not re.search(r"(?<!\\)[%#_]", row), (path.name, row)
        assert text.isascii(), path.name


def test_a_wide_table_is_stacked_and_a_claim_stands_in_words(built: Path) -> None:
    """Every arm leads each part; all numbers are there; claims are sentences, never ids."""
    text = (built / "reports/tables/seeds-digits.tex").read_text()
    header, *rows = csv.reader((built / "reports/tables/seeds-digits.csv").read_text().splitlines())
    wide = Table("wide", "caption", [*header, *(f"more-{name}" for name in header[2:])], [r + r[2:] for r in rows])
    parts = wide.latex().split(r"\begin{tabular}")[1:]
    assert len(parts) > 1
    assert all(part.count("mart-no-kl &") == 3 for part in parts)
    assert text.count("mart-no-kl &") == 3
    verdicts = (built / "reports/tables/verdicts-digits.md").read_text()
    assert "Under PGD-20, MART keeps more accuracy than plain adversarial training." in verdicts
    assert "mart-over-pgd" not in verdicts
    assert re.search(r"\d+ more claims are not run", verdicts)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_tables_compile(built: Path, tmp_path: Path) -> None:
    inputs = "\n".join(rf"\input{{{path}}}" for path in sorted((built / "reports/tables").glob("*.tex")))
    preamble = r"\documentclass{article}\usepackage{booktabs,array,longtable}\begin{document}"
    (tmp_path / "all.tex").write_text(f"{preamble}\n{inputs}\n\\clearpage\n\\end{{document}}\n")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout


def test_markdown_and_csv_hold_the_same_cells(built: Path) -> None:
    for path in (built / "reports/tables").glob("*.csv"):
        rows = list(csv.reader(path.read_text().splitlines()))
        lines = [line for line in path.with_suffix(".md").read_text().splitlines() if line.startswith("|")]
        assert [
            [cell.strip().strip("*") for cell in line[1:-1].split(" | ")] for line in lines if "---" not in line
        ] == rows


def test_special_characters_are_escaped() -> None:
    table = Table("t", "50 % of x_y & {z}", ["a|b", "ε ≤ 8/255"], [["c#d", "1 ± 2"]])
    assert r"50 \% of x\_y \& \{z\}" in table.latex()
    assert r"$\varepsilon$ $\leq$ 8/255" in table.latex()
    assert "a\\|b" in table.markdown()


def test_the_main_table_says_what_was_not_run(built: Path) -> None:
    rows = list(csv.DictReader((built / "reports/tables/main-digits.csv").read_text().splitlines()))
    assert [row["arm"] for row in rows] == ARMS
    assert {row["arm"]: row["seeds"] for row in rows} == dict.fromkeys(ARMS, "3") | {"trades": "2"}


def test_a_papers_table_says_what_training_took(built: Path) -> None:
    rows = csv.DictReader((built / "reports/tables/mart-digits.csv").read_text().splitlines())
    cost = {row["arm"]: row["passes (1000)"] for row in rows}
    assert cost["standard"] == "3 + 3"  # 3200 images met, once forward and once backward
    assert cost["mart"] == "35 + 35"


@pytest.mark.parametrize(
    ("means", "half", "row"),
    [([60.0, 70.0, 65.0], 2.0, 1), ([60.0, 66.0, 65.0], 2.0, None), ([60.0], 1.0, None), ([None, 70.0, 65.0], 2.0, 1)],
)
def test_only_a_best_that_intervals_support_is_bold(means: list[float | None], half: float, row: int | None) -> None:
    column = [m if m is None else Estimate(m, Interval(m - half, m + half), 400, (0, 1), (m, m)) for m in means]
    assert best(column) == row


def test_a_papers_table_has_a_best_that_intervals_support_in_bold(tmp_path: Path) -> None:
    synthetic.write(tmp_path, n=200)
    for seed in (0, 1, 2):
        synthetic.edit(tmp_path, f"digits/mart/{seed}", lambda r: r["best"]["attacks"]["pgd-20"].update(correct=199))
        (tmp_path / f"reports/records/digits/mart/{seed}/examples.npz").unlink()  # of other outcomes
    mart = chapters.load()[0].paper
    table = paper_table(synthetic.study(tmp_path), mart, "digits")
    column = table.header.index("pgd-20, measured")
    assert [table.rows[row][0] for row, place in table.bold if place == column] == ["mart"]
    assert all(table.header[place].endswith("measured") for _, place in table.bold)


def test_figures_come_in_three_forms(built: Path) -> None:
    figures = built / "reports/figures"
    names = {path.stem for path in figures.iterdir()}
    wanted = {"tradeoff", "security-curve", "heat-map", "cost", "per-class", "training", "perturbations"}
    wanted |= {"components", "checkpoints"}
    assert {f"{name}-{dataset}" for name in wanted for dataset in ("digits", "cifar10")} <= names
    of_mart = {name for name in names if name.startswith("mart-") and name.endswith("-digits")}
    assert of_mart == {f"mart-{name}-digits" for name in ("ablation", "effects", "sweep-beta-pgd-20")}
    assert not [name for name in names if name.startswith(("atop", "advamd", "rat", "reverse"))]  # none was run
    assert {path.name for path in figures.iterdir()} == {
        f"{name}.{form}" for name in names for form in ("pdf", "svg", "png")
    }
    for name in names:
        width = int.from_bytes((figures / f"{name}.png").read_bytes()[16:20])
        assert width in (round(COLUMN * 300), *(round(WIDE * share * 300) for share in (2 / 3, 1))), name
        assert b"/Type3" not in (figures / f"{name}.pdf").read_bytes(), name


def test_a_legend_of_many_long_names_stays_inside_its_figure() -> None:
    for count in (3, 10, 44):
        with paper():
            figure, axes = canvas(2.0, count)
            for i in range(count):
                axes.plot([0], [0], label=f"pgd-regularise-misclassified-{i}" if i % 3 else f"arm-{i}")
            legend(figure, axes)
            figure.draw_without_rendering()
            drawn = figure.legends[0].get_window_extent()
            assert drawn.x0 >= 0
            assert drawn.x1 <= figure.bbox.width
            assert drawn.y1 <= axes.get_window_extent().y0
            assert axes.get_window_extent().height > 0.6 * 2.0 * figure.dpi


@pytest.mark.parametrize(
    ("name", "small", "larger"),
    [("0 - zero", "0", "0"), ("Ankle boot", "Ankl", "Ankle"), ("automobile", "auto", "automobi")],
)
def test_a_class_is_named_below_a_picture_as_long_as_there_is_room(name: str, small: str, larger: str) -> None:
    assert (short(name), short(name, WORD)) == (small, larger)


def test_an_arms_look_is_its_own_and_stays() -> None:
    arms = [f"arm-{i}" for i in range(40)]
    drawn = looks(arms)
    assert len({(look.colour, look.marker) for look in drawn.values()}) == len(arms)
    assert looks([*arms, "new"])["arm-7"] == drawn["arm-7"]
    assert looks(arms[:5], arms)["arm-7"] == drawn["arm-7"]
    assert len({look.colour for look in looks(arms[:12]).values()}) == 12
    neighbours = pairwise(drawn.values())
    assert all(a.colour != b.colour and a.marker != b.marker for a, b in neighbours)


def test_colours_differ_in_grey_or_in_marker() -> None:
    def luminance(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert all(luminance(colour) < 0.75 for colour in COLOURS)  # visible on white
    assert len(set(COLOURS)) == len(COLOURS)
    assert len(set(MARKERS)) == len(MARKERS)


# ------------------------------------------------------------------------------------------------- other readers


def test_curves_for_dvc_plots(built: Path) -> None:
    rows = list(csv.DictReader((built / "reports/curves/training.csv").read_text().splitlines()))
    assert {(row["dataset"], row["measure"]) for row in rows} >= {("digits", "clean"), ("digits", "robust")}
    assert [row["epoch"] for row in rows if row["arm"] == "mart" and row["dataset"] == "digits"][:4] == [
        "2",
        "4",
        "6",
        "8",
    ]
    template = json.loads((ROOT / "turncoat/reporting/templates/training-curves.json").read_text())
    assert template["spec"]["encoding"]["color"]["scale"]["range"] == list(COLOURS)


def test_model_info_has_robustbenchs_form(built: Path) -> None:
    folder = built / "reports/robustbench"
    assert {path.name for path in folder.rglob("*.json")} == {f"{arm}-0.json" for arm in ARMS}
    info = json.loads((folder / "cifar10/Linf/mart-0.json").read_text())
    assert (info["dataset"], info["venue"], info["architecture"]) == ("cifar10", "ICLR 2020", "resnet18")
    record = json.loads((built / "reports/records/cifar10/mart/0/record.json").read_text())["best"]
    assert info["clean_acc"] == f"{record['clean']['correct'] / record['clean']['n'] * 100:.2f}"
    assert info["autoattack_acc"] is None
    assert info["unreliable"] is False


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_stage_helps_without_loading_anything() -> None:
    said = run_python(
        "import runpy, sys\n"
        "sys.argv = ['report', '--help']\n"
        "try: runpy.run_module('stages.report', run_name='__main__')\n"
        "except SystemExit: print(sorted({'torch', 'matplotlib', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    assert "--partial" in said
    assert said.endswith("[]\n")


@pytest.mark.fault(26, "the report stage over a study with a hole", "exit 2; 0 with --partial")
def test_the_stage_refuses_missing_cells_unless_told_that_the_report_is_partial(tmp_path: Path) -> None:
    """The study's own params.yaml, and nothing run yet: a report all the same, and an exit status that tells."""
    shutil.copy(DEFAULTS, tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TURNCOAT_TRACKING": "off"}
    for options, status in (([], 2), (["--partial"], 0)):
        command = [sys.executable, "-m", "stages.report", *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert "not run: digits/mart/0 (no record); dvc repro -f -s finetune@digits-mart-0" in done.stdout
        assert ("accept a partial report with --partial" in done.stderr) is bool(status)
        assert "No cell has been run yet" in (tmp_path / "reports/report.html").read_text()
        assert json.loads((tmp_path / "reports/summary.json").read_text()) == {}


def test_reporting_needs_no_torch() -> None:
    code = "import sys, turncoat.reporting.report\nprint({'torch', 'matplotlib', 'scipy'} & set(sys.modules))"
    assert run_python(code) == "set()\n"
