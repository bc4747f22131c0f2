"""What a reader of the documentation may count on: links lead somewhere, sentences are short, the README is too."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from stages.pipeline import cells
from turncoat.papers import PAPERS
from turncoat.papers.arms import check_arms
from turncoat.reading import read_yaml
from turncoat.settings import load

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "turncoat/papers/*/README.md", "reports/reference/README.md")
    for path in ROOT.glob(pattern)
)
WORDS = 35  # of one sentence at most
FLAG = re.compile(r"""Flag\(\s*(?:"([a-z-]+)"(?: if \w+ else "([a-z-]+)")?|name)""")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def paragraphs(text: str) -> Iterator[str]:
    """Running text alone: no code, tables, headings or pictures; a list's item is a paragraph."""
    text = re.sub(r"<!--.*?-->", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.S)
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        bare = line.strip()
        apart = not bare or bare.startswith(("|", "#", "![", ":::", "!!!")) or line.startswith("    ")
        item = re.match(r"([-*]|\d+\.) ", bare)
        if (apart or item) and lines:
            yield " ".join(lines)
            lines = []
        if not apart:
            lines.append(bare[item.end() :] if item else bare)


def long_sentences(text: str) -> list[str]:
    """Sentences of more words than `WORDS`; what stands in backquotes is one word."""
    found = list[str]()
    for paragraph in paragraphs(text):
        plain = re.sub(r"`[^`]*`", "Code", re.sub(r"\]\([^)]*\)", "]", paragraph))
        sentences = re.split(r"(?<=[.!?])[\"*)\]]*\s+(?=[^a-z])", plain)
        found += [one for one in sentences if sum(bool(re.search(r"\w", word)) for word in one.split()) > WORDS]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_sentences_are_short(page: Path) -> None:
    assert long_sentences(page.read_text()) == []


def test_long_sentences_are_seen() -> None:
    """The check itself: lists, wrapped lines and code do not hide one, and full stops in figures end none."""
    words = "Word " + "word " * 33
    assert long_sentences(f"- {words}\n  ends here.\n") != []
    assert long_sentences(f"{words}\nends. {words}`a b c`.") == []
    assert long_sentences(f"{words} 1.5 more words.") != []
    assert long_sentences(f"```\n{words * 2}\n```\n| {words * 2} |\n") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if not re.match(r"[a-z]+:", link):
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), f"{page.relative_to(ROOT)}: {link}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.M)
                assert anchor in [re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles]


def test_named_files_exist() -> None:
    """A page of the documentation that another file names: it was moved or renamed without telling."""
    for page in [*PAGES, *(ROOT / "turncoat").rglob("*.py"), *(ROOT / "turncoat").rglob("*.yaml")]:
        if page.name not in ("CHANGELOG.md", "log.md"):
            for name in re.findall(r"docs/[\w/-]+\.md", page.read_text()):
                assert (ROOT / name).exists(), f"{page.relative_to(ROOT)} names {name}"


def test_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 110
    table = re.search(r"<!-- atlas -->(.*)<!-- /atlas -->", text, flags=re.S)
    assert table is not None
    rows = [line for line in table[1].splitlines() if line.startswith("| ")][1:]
    assert len([row for row in rows if "---" not in row]) == len(PAPERS)


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_tells_first_what_matters(paper: str) -> None:
    """The claim, what was measured, and where its loss is computed: a file and a function that are there."""
    text = (ROOT / "turncoat/papers" / paper / "README.md").read_text()
    claim, measured, loss = (text.index(f"**{word}.**") for word in ("Claim", "Measured", "Loss"))
    assert text.index("# ") < claim < measured < loss < text.index("\n## ")
    named = re.search(r"\*\*Loss\.\*\* `([\w/.]+\.py)`, `(\w+)\.(\w+)`", text)
    assert named is not None
    code = (ROOT / named[1]).read_text()
    assert f"class {named[2]}(" in code
    assert f"    def {named[3]}(" in code


def test_every_flag_is_explained() -> None:
    """Each flag that the evaluation can raise has a row in docs/flags.md."""
    told = (ROOT / "docs/flags.md").read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "turncoat/evaluation").glob("*.py"))
    names = {name for pair in FLAG.findall(code) for name in pair if name}
    names |= {"stateful", "batch-dependent", "told-apart"}  # steadiness.py names these in a table of probes
    assert len(names) >= 20
    assert [name for name in sorted(names) if f"`{name}`" not in told] == []


BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), flags=re.M | re.S))
    if page.name != "cluster.md"  # whose block is a file of its own
]


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_to_be_set_in_params_yaml_is_taken(block: str, tmp_path: Path) -> None:
    """Each block of settings in the docs, put among those of params.yaml; what a data set lacks is digits'."""
    values = read_yaml(ROOT / "params.yaml")
    digits = values["datasets"]["digits"]
    given = yaml.safe_load(block)
    for section, entries in ({"datasets": {"mine": given}} if set(given) == {"data"} else given).items():
        if section == "datasets":
            entries = {name: digits | entry for name, entry in entries.items()}
        values[section] = values.get(section, {}) | entries
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    check_arms(load(tmp_path / "params.yaml"))
    assert {cell.stage for cell in cells(values, ROOT / "dvc.yaml").values()} >= {"download", "finetune", "report"}


def test_the_docs_say_what_to_set() -> None:
    assert len(BLOCKS) >= 5
