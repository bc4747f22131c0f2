"""`stages.compare`: two arms, of one study or of two, under what both were measured by."""

import sys
from pathlib import Path

import pytest

from stages import compare
from tests.defaults import DEFAULTS
from tests.reporting import synthetic
from turncoat.errors import TurncoatError
from turncoat.reporting.contrast import contrast
from turncoat.reporting.side_by_side import HEADER


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a finished study, and another one beside it that has other seeds."""
    synthetic.write(tmp_path / "here", n=200)
    synthetic.write(tmp_path / "other", seeds=(2, 3), n=200)
    (tmp_path / "here/params.yaml").write_bytes(DEFAULTS.read_bytes())
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["compare", *words])
    compare.main()
    return capsys.readouterr().out.splitlines()


def test_a_line_is_the_paired_difference_with_its_interval(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    title, head, row, *rest = said(monkeypatch, capsys, "mart", "pgd", "--measure", "pgd-20")
    assert title == "digits: mart minus pgd"
    assert head.split() == HEADER
    assert len(HEADER) <= 12
    found = contrast(synthetic.study(here), "digits", ("mart", "pgd"), "pgd-20")
    assert found
    assert row.split()[0] == "pgd-20"
    assert row.split()[3:6] == [f"{number:+.1f}" for number in (found.effect, *found.interval)]
    assert row.split()[-2:] == ["200", "0,1,2"]
    assert rest == []


def test_another_checkout_is_compared_on_the_seeds_that_both_have(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(monkeypatch, capsys, "mart", "mart@../other")
    rows = {line.split()[0]: line.split() for line in lines[2:] if not line.startswith("  ")}
    assert {"clean", "pgd-20", "worst", "shifts", "universal"} <= rows.keys()
    assert rows["worst"][3] == "+0.0", "it is the same cell"
    assert rows["worst"][-1] == "2"
    assert any("one seed in common" in line for line in lines)
    assert any("seeds of one side alone are left out: 0, 1, 3" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mart", "mart"), "compared with itself"),
        (("mart", "mert"), "no record of mert in .*; did you mean mart"),
        (("mart", "pgd@nowhere"), "nowhere is no folder with reports/records, no kept study, and no experiment"),
        (("mart", "pgd", "--measure", "square"), "no measure square in common"),
    ],
)
def test_what_cannot_be_compared_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str], message: str
) -> None:
    with pytest.raises(TurncoatError, match=message):
        said(monkeypatch, capsys, *words)
