"""One finished tiny study for all that is done to studies; each test takes a copy."""

import sys
from pathlib import Path

import pytest

from tests.faults.study import lay, shell


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = lay(tmp_path_factory.mktemp("finished") / "study")
    shell(folder, sys.executable, "-m", "stages.repro")
    return folder
