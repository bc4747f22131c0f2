"""What every stage's command line does before its work."""

import os
from pathlib import Path

import pytest

from stages.common import run


def test_compiled_graphs_are_kept_beside_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "so that it is put back")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    run(lambda: None)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / ".scratch/compiled")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    run(lambda: None)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"
