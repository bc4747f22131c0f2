"""The side of MLflow: runs that can be written twice over and still hold every point once. Importing this is slow."""

import contextlib
import fcntl
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds; MLflow's own 120, seven times over, is minutes of silence
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}.items():
    os.environ.setdefault(_name, _value)  # before the import, and a user's own setting wins

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param, RunTag, ViewType  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

from turncoat.tracking.paths import database, experiment  # noqa: E402

PROXIED = "mlflow-artifacts:/"
KIND = "mlflow.experimentKind"  # without it the page may open an experiment on its traces, of which there are none
Point = tuple[str, int, float, int]  # name, step, value, time in ms
Item = TypeVar("Item")

# MLflow's limits: entities of a request, length of a parameter, of a tag, of a name
METRICS, PARAMS, VALUE, TAG, NAME = 1000, 100, 6000, 5000, 250


@dataclass
class Run:
    """A run and what MLflow holds of it."""

    id: str
    name: str
    status: str
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    points: dict[tuple[str, int], tuple[float, int]] = field(default_factory=dict)  # (name, step): (value, time)


class Store:
    """One experiment of one MLflow store or server."""

    def __init__(self, uri: str) -> None:
        self.made = 0  # runs
        with alone(uri):
            check_database(uri)
            self._client = MlflowClient(uri)
            # A server knows itself where to keep files. Beside an SQLite store goes mlartifacts/, where `mlflow ui`
            # looks for what has an address of this kind: no path is in it, so that the checkout may be moved.
            store = database(uri)
            self._files = store.absolute().parent / "mlartifacts" if store else None
            location = f"{PROXIED}runs" if store else None
            self._experiment = self._find_experiment(experiment(), location)

    def _find_experiment(self, name: str, location: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            made = self._client.create_experiment(name, location)
            found = self._client.get_experiment(made)
        elif found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        if KIND not in found.tags:  # a person's own choice in the page stays
            self._client.set_experiment_tag(found.experiment_id, KIND, "custom_model_development")
        return str(found.experiment_id)

    # ------------------------------------------------------------------------------------------------------------ runs

    def open(self, header: Mapping[str, Any]) -> Run:
        """The run of the header's cell and fingerprint, found or made; other runs of the cell become superseded."""
        cell, tags = header["open"], {"cell": header["open"], "fingerprint": header["fingerprint"]}
        tags |= {"superseded": "false", **header["tags"]}
        if header.get("experiment"):
            tags["experiment"] = header["experiment"]
        others = self._search(f"tags.cell = '{cell}'")
        alike = [run for run in others if run.data.tags.get("fingerprint") == header["fingerprint"]]
        for double in alike[1:]:  # a run deleted by hand was made anew, and then came back with its experiment
            self._client.delete_run(double.info.run_id)
        if alike:
            found = alike[0]
            run = self._read(found)
            if not header["retold"]:
                self._client.update_run(run.id, status="RUNNING")
                run.status = "RUNNING"
            self.tag(run, tags)
        else:
            run = self._create(cell, tags, header["time"])
        if not header.get("experiment"):
            for other in others:
                if other.info.run_id != run.id and not other.data.tags.get("experiment"):
                    self._client.set_tag(other.info.run_id, "superseded", "true")
        self.params(run, header["params"])
        return run

    def _search(self, text: str) -> Sequence[Any]:
        found = self._client.search_runs([self._experiment], text, ViewType.ACTIVE_ONLY, order_by=["start_time ASC"])
        return list(found)

    def _create(self, name: str, tags: Mapping[str, str], time: int) -> Run:
        made = self._client.create_run(self._experiment, start_time=time, run_name=name)
        run = Run(made.info.run_id, name, "RUNNING", {})
        self.made += 1
        self.tag(run, tags)
        return run

    def _read(self, found: Any) -> Run:
        tags, params = dict(found.data.tags), dict(found.data.params)
        run = Run(found.info.run_id, found.info.run_name, found.info.status, tags, params)
        for name in found.data.metrics:
            for metric in self._client.get_metric_history(run.id, name):
                run.points[name, metric.step] = (metric.value, metric.timestamp)
        return run

    def _renew(self, run: Run, params: Mapping[str, str], points: Mapping[tuple[str, int], tuple[float, int]]) -> None:
        """Replace the run by one that holds just this: MLflow can neither change a parameter nor take back a point."""
        old = self._client.get_run(run.id)
        self._client.delete_run(run.id)  # into MLflow's own trash
        tags = {name: value for name, value in run.tags.items() if name != "mlflow.runName"}
        made = self._create(run.name, tags, old.info.start_time)
        run.id, run.status, run.tags, run.params, run.points = made.id, made.status, made.tags, {}, {}
        self._add_params(run, params)
        self._add_points(run, points)

    # --------------------------------------------------------------------------------------------------------- content

    def tag(self, run: Run, tags: Mapping[str, str]) -> None:
        """Set tags; these may change freely."""
        new = {clean(name): value[:TAG] for name, value in tags.items()}
        new = {name: value for name, value in new.items() if run.tags.get(name) != value}
        for part in chunks(new.items(), PARAMS):
            self._client.log_batch(run.id, tags=[RunTag(name, value) for name, value in part])
        run.tags |= new

    def params(self, run: Run, params: Mapping[str, Any]) -> None:
        """Set parameters. A group (the name up to the first dot) that differs from the run's is set anew."""
        new = {clean(name): str(value)[:VALUE] for name, value in params.items()}
        groups = {group(name) for name in new}
        wrong = {group(name) for name, value in run.params.items() if group(name) in groups and new.get(name) != value}
        if wrong:
            kept = {name: value for name, value in run.params.items() if group(name) not in wrong}
            self._renew(run, kept | new, run.points)
        else:
            self._add_params(run, new)

    def _add_params(self, run: Run, params: Mapping[str, str]) -> None:
        new = {name: value for name, value in params.items() if name not in run.params}
        for part in chunks(new.items(), PARAMS):
            self._client.log_batch(run.id, params=[Param(name, value) for name, value in part])
        run.params |= new

    def curve(self, run: Run, points: Iterable[Point]) -> None:
        """Add points of curves, each name and step once.

        A value that contradicts the run's is of a training begun again: from that step on the run's curves go.
        """
        new = {(clean(name), step): (bounded(value), time) for name, step, value, time in points}
        wrong = [at[1] for at, (value, _) in new.items() if at in run.points and not same(run.points[at][0], value)]
        if wrong:
            kept = {at: point for at, point in run.points.items() if at[1] < min(wrong)}
            self._renew(run, dict(run.params), kept | new)
        else:
            self._add_points(run, new)

    def final(self, run: Run, measures: Mapping[str, float], time: int) -> None:
        """Set final measures, at step 0. A group (the name up to the first slash) that differs is set anew."""
        new = {(clean(name), 0): (bounded(value), time) for name, value in measures.items()}
        groups = {group(name) for name, _ in new}
        wrong = {
            group(at[0])
            for at, (value, _) in run.points.items()
            if at[1] == 0 and group(at[0]) in groups and not (at in new and same(new[at][0], value))
        }
        if wrong:
            kept = {at: point for at, point in run.points.items() if at[1] or group(at[0]) not in wrong}
            self._renew(run, dict(run.params), new | kept)
        else:
            self._add_points(run, new)

    def _add_points(self, run: Run, points: Mapping[tuple[str, int], tuple[float, int]]) -> None:
        new = {at: point for at, point in points.items() if at not in run.points}
        for part in chunks(new.items(), METRICS):
            metrics = [Metric(name, value, time, step) for (name, step), (value, time) in part]
            self._client.log_batch(run.id, metrics=metrics)
        run.points |= new

    def artifact(self, run: Run, path: Path, folder: str | None) -> None:
        """Show a file or a folder with the run; the same name again replaces it."""
        where = str(self._client.get_run(run.id).info.artifact_uri)
        if self._files and where.startswith(PROXIED):  # MLflow itself would ask a server for it
            target = self._files / where.removeprefix(PROXIED) / (folder or "") / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, target)
        elif path.is_dir():
            self._client.log_artifacts(run.id, str(path), "/".join(filter(None, [folder, path.name])))
        else:
            self._client.log_artifact(run.id, str(path), folder)

    def close(self, run: Run, status: str, time: int) -> None:
        """End the run; one that ended so before keeps its time."""
        if run.status != status:
            self._client.set_terminated(run.id, status, time)
            run.status = status


def check_database(uri: str) -> None:
    """Reach a database server once, within seconds: MLflow tries ten times over, for two minutes, in silence.

    Raises:
        Exception: the server's own, of a wrong password say.
    """
    if re.match(r"(postgresql|mysql|mssql)\b", uri):
        import sqlalchemy

        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
        with engine.connect():
            pass


@contextlib.contextmanager
def alone(uri: str) -> Iterator[None]:
    """Only one process at a time makes the tables of an SQLite store: MLflow lets several do it, and they collide.

    The lock is on the folder itself, so that no file is left beside the store.
    """
    path = database(uri)
    lock = os.open(path.parent, os.O_RDONLY) if path and path.parent.is_dir() else None
    try:
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def is_refused(error: Exception) -> bool:
    """Whether the server refused what was sent (more of the same will not help), rather than being out of reach."""
    return isinstance(error, MlflowException) and error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


def group(name: str) -> str:
    return re.split(r"[./]", name, maxsplit=1)[0]


def clean(name: str) -> str:
    """The name in the characters that MLflow takes."""
    return re.sub(r"[^\w\-./ :]", "_", name)[:NAME]


def bounded(value: float) -> float:
    """Infinity as MLflow stores it: the largest number of its sign."""
    return value if math.isnan(value) else max(-sys.float_info.max, min(sys.float_info.max, value))


def same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9) or (math.isnan(one) and math.isnan(other))


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    every = list(items)
    return (every[start : start + size] for start in range(0, len(every), size))
