"""A synthetic study with arms of several papers, and what their analyses leave."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reporting import synthetic
from turncoat.reporting.study import Study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    return synthetic.of_papers(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    yield
    from matplotlib import pyplot as plt

    plt.close("all")
