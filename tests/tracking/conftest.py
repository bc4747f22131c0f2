"""A project folder where nothing is tracked yet; when the test is over, no forwarder is left in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from turncoat.tracking import relay

FOREIGN = (
    "DVC_ROOT",
    "DVC_STAGE",
    "DVC_EXP_NAME",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "TURNCOAT_TRACKING",
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, made the current one, with all in its name that an address must escape."""
    project = tmp_path / "study 100%41 #1 ü"
    project.mkdir()
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(project)
    yield project
    for folder in (project / ".scratch" / "tracking").glob("*/"):
        with relay.take_over(folder):
            pass


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A fresh SQLite store, made once: MLflow takes seconds for one."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("store")
    MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return (folder / "mlflow.db").read_bytes()
