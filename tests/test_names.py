"""Only a paper's folder names the paper: another one is a folder and a line."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = re.compile(r"mart|advamd|atop|\brat\b|reverse", re.IGNORECASE)  # "smart", "reversed" and the like too
ALLOWED = {
    "turncoat/models/calibrator.py": "the network, with its source; weights' metadata name what models/ defines",
    "turncoat/models/purifier.py": "the same; and Python's reversed()",
    "turncoat/models/transforms.py": "the transforms, with their source",
    "stages/perturb.py": "Python's reversed()",
}


def found() -> dict[str, list[str]]:
    """{file: its lines with a paper's name}, of all that is not a paper's own."""
    files = [file for top in ("turncoat", "stages") for file in sorted((ROOT / top).rglob("*")) if file.is_file()]
    named = {}
    for file in files:
        path = file.relative_to(ROOT).as_posix()
        if (path.startswith("turncoat/papers/") and path.count("/") > 2) or "__pycache__" in path:
            continue
        lines = [line for line in file.read_text().splitlines() if NAMES.search(line)]
        named |= {path: lines} if lines else {}
    return named


def test_nothing_else_in_the_house_names_a_paper() -> None:
    named = found()
    (the_list,) = named.pop("turncoat/papers/__init__.py")
    assert the_list.startswith("PAPERS = ")
    assert set(named) == set(ALLOWED), {path: named[path] for path in set(named) - set(ALLOWED)}


@pytest.mark.parametrize("word", ["MART's", "import advamd", "of RAT,", "reverse"])
def test_a_name_would_be_found(word: str) -> None:
    assert NAMES.search(word)
    assert not NAMES.search("ratio, operate, iterate")
