"""What code rests on, in small repositories whose imports are known."""

import shutil
import subprocess

import pytest

from turncoat.closure import ROOT, checksums, closure, code_checksum
from turncoat.errors import TurncoatError

HOUSE = {
    "turncoat/__init__.py": '__version__ = "1"\n',
    "turncoat/base.py": "",
    "turncoat/typed.py": "",
    "turncoat/late.py": "import numpy\n",
    "turncoat/room/__init__.py": '"""All."""\nfrom .one import One\nfrom .two import Two\n__all__ = ["One", "Two"]\n',
    "turncoat/room/one.py": "from turncoat.base import x\n",
    "turncoat/room/two.py": "",
    "turncoat/busy/__init__.py": "from turncoat.busy.here import here\nNAMES = {'here': here}\n",
    "turncoat/busy/here.py": "",
    "turncoat/busy/there.py": "from ..room import two\n",
    "turncoat/tracking/__init__.py": "from turncoat import late\n",
    "stages/__init__.py": "",
    "stages/loop.py": "from stages import round\n",
    "stages/round.py": "from stages import loop\n",
}


@pytest.fixture
def house(tmp_path):
    for name, text in HOUSE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def behind(text):
        """The files that stages/new.py, with this text, rests on beside itself and the outermost packages."""
        (tmp_path / "stages/new.py").write_text(text)
        found = {path.relative_to(tmp_path).as_posix() for path in closure(["stages.new"], tmp_path)}
        assert {"stages/new.py", "stages/__init__.py"} <= found
        return found - {"stages/new.py", "stages/__init__.py", "turncoat/__init__.py"}

    return tmp_path, behind


@pytest.mark.parametrize(
    ("text", "behind"),
    [
        ("import os, json\nfrom numpy import array\n", set()),
        ("import turncoat.base\n", {"base"}),
        ("from turncoat import base as b\n", {"base"}),
        ("from turncoat.base import nothing\n", {"base"}),
        ("def f():\n    if True:\n        from turncoat import late\n", {"late"}),
        ("try:\n    import nowhere\nexcept ImportError:\n    from turncoat import late\n", {"late"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import turncoat.typed\n", set()),
        (
            "import typing\nif typing.TYPE_CHECKING:\n    import turncoat.typed\nelse:\n    import turncoat.base",
            {"base"},
        ),
        ("from turncoat.room import One\n", {"room/__init__", "room/one", "base"}),
        ("from turncoat.room import Two as T\n", {"room/__init__", "room/two"}),
        ("from turncoat.room.two import x\n", {"room/__init__", "room/two"}),
        ("from turncoat import room\n", {"room/__init__", "room/one", "room/two", "base"}),
        ("from turncoat.room import *\n", {"room/__init__", "room/one", "room/two", "base"}),
        (
            "from turncoat.busy.there import x\n",
            {"busy/__init__", "busy/here", "busy/there", "room/__init__", "room/two"},
        ),
        ("from turncoat import tracking\nfrom turncoat.tracking import x\n", set()),
    ],
)
def test_imports_are_followed_as_far_as_they_reach(house, text, behind):
    assert house[1](text) == {f"turncoat/{name}.py" for name in behind}


def test_modules_that_import_each_other_are_one(house):
    root, _ = house
    assert {path.stem for path in closure(["stages.loop"], root)} == {"__init__", "loop", "round"}


def test_what_is_not_there_or_no_python_is_named(house):
    root, behind = house
    with pytest.raises(TurncoatError, match=r"turncoat\.nothing: no module"):
        closure(["turncoat.nothing"], root)
    (root / "turncoat/late.py").write_text("def (:\n")
    with pytest.raises(TurncoatError, match=r"late\.py: line 1"):
        behind("import turncoat.late")


CODE = '''"""What it does."""

def f(a, b=(1, 2)):
    """Says so."""
    return a["x"] + f"{b!r:>3}"  # a sum


class C:
    """A class."""
'''
SAME = {
    "comments": CODE.replace("# a sum", "# another").replace("\n\n", "\n\n# and\n"),
    "docstrings": CODE.replace("Says so.", "Says it in other words.").replace('"""What it does."""\n', ""),
    "layout": CODE.replace("(a, b=(1, 2))", "(\n    a,\n    b=(1, 2,),\n)").replace('"x"', "'x'"),
}
OTHER = {
    "a constant": CODE.replace("2", "3"),
    "its type": CODE.replace("2", "2.0"),
    "a string that is no docstring": CODE.replace('"x"', '"y"'),
    "a name": CODE.replace("def f", "def g"),
    "a format": CODE.replace("!r", "!s"),
    "one more line": CODE + "\nf = None\n",
}


def test_looks_do_not_count_and_everything_else_does(tmp_path):
    def said(name, text):
        path = tmp_path / name
        path.write_text(text)
        return checksums([path], tmp_path)[name]

    first = said("a.py", CODE)
    for number, (what, text) in enumerate(SAME.items()):
        assert said(f"same{number}.py", text) == first, what
    for number, (what, text) in enumerate(OTHER.items()):
        assert said(f"other{number}.py", text) != first, what
    assert said("a.yaml", "a: [1, 2]  # so\n") == said("b.yaml", "a:\n- 1\n- 2\n") != said("c.yaml", "a: [1, 3]\n")
    assert said("a.txt", "a") != said("b.txt", "a ")


def test_an_edit_while_the_program_runs_is_seen(house):
    root, _ = house
    before = code_checksum(["stages.loop"], root)
    (root / "stages/round.py").write_text("from stages import loop\nx = 1\n")
    assert code_checksum(["stages.loop"], root) != before


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_each_version_of_python_finds_the_same(version):
    other = shutil.which(f"python{version}")
    if (
        not other or subprocess.run([other, "-c", ""], capture_output=True).returncode
    ):  # a shim of one that is not there
        pytest.skip(f"no Python {version} here")
    asked = "code_checksum(['stages.finetune', 'stages.evaluate', 'stages.report'])"
    # without the packages of this environment: no YAML is read for code
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules['yaml'] = sys\n"
    code += f"from turncoat.closure import code_checksum\nprint({asked})"
    done = subprocess.run([other, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == code_checksum(["stages.finetune", "stages.evaluate", "stages.report"])
