"""The data tests decide themselves what is in the mirror; the one of the person who runs them is `real_mirror`."""

import os
from pathlib import Path

import pytest

REAL_MIRROR = os.environ.get("TURNCOAT_MIRROR", "")


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TURNCOAT_MIRROR", raising=False)


@pytest.fixture
def real_mirror(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `TURNCOAT_MIRROR` names outside the tests."""
    if not REAL_MIRROR:
        pytest.skip("TURNCOAT_MIRROR names no folder with the real data sets")
    monkeypatch.setenv("TURNCOAT_MIRROR", REAL_MIRROR)
    return Path(REAL_MIRROR)
