"""No fault without a test, and a table that tells the truth."""

import re
import subprocess
import sys
from pathlib import Path

from tests.faults.table import FAULTS

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"pytest\.mark\.fault\(\s*(\d+)")


def test_every_fault_has_a_test_and_every_mark_a_fault():
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    marked = {int(number) for path in files for number in MARK.findall(path.read_text())}
    assert marked == set(FAULTS)


def test_the_table_says_what_passed_failed_and_was_left_out(tmp_path):
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_three.py").write_text(
        "import pytest\n"
        "@pytest.mark.fault(1, 'killed', 'the same bytes')\n"
        "def test_a(): pass\n"
        "@pytest.mark.fault(2, 'changed', 'fresh start')\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_b(n): assert n == 1\n"
        "@pytest.mark.fault(28, 'no GPU', 'said')\n"
        "def test_c(): pytest.skip('no GPU here')\n"
        "@pytest.mark.fault(3, 'killed in a fixture', 'seen')\n"
        "def test_d(nothing): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [*command, "-m", "fault", "-p", "no:cacheprovider", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    said = done.stdout
    for line in (
        r" 1  kill -9 in mid-training, three times over\n +killed: the same bytes  \[\d+\.\d s\]",
        r" 2  a setting.*\n +changed \(x2\): FAILED: .*test_b\[2\]",
        r" 3  kill while.*\n +killed in a fixture: FAILED: .*test_d",
        r"28  no GPU.*\n +no GPU: skipped: no GPU here",
        r" 4  .*\n +not run here",
    ):
        assert re.search(line, said), said
