"""What a study's files say to MLflow: one place for the stages, which say it live, and for the rebuild from files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from turncoat import files
from turncoat.tracking import spool


def key(cell: Mapping[str, Any]) -> str:
    """The name of a cell's run: `dataset/arm/seed`."""
    return f"{cell['dataset']}/{cell['arm']}/{cell['seed']}"


def log_training(training: Mapping[str, Any], history: Iterable[Mapping[str, Any]], **options: Any) -> None:
    """The run of a finished training: what the loop said live, from `training.json` and `history.json`."""
    rows, final = [(row["epoch"], row) for row in history], summary(training)
    name, settings = key(training["cell"]), training["settings"]
    with spool.open(name, training["fingerprint"], settings=settings, **options) as tracker:
        for epoch, row in rows:
            tracker.log(epoch, row)
        tracker.final(final)


def summary(training: Mapping[str, Any]) -> dict[str, Any]:
    """The final measures of a training, from its `training.json`."""
    return {
        "validation": {
            which: {name: rate for name, rate in training["validation"][which].items() if name != "n"}
            for which in ("best", "last")
            if training.get("validation", {}).get(which)
        },
        "best_epoch": training.get("best_epoch"),
        "parameters": training.get("parameters"),
        "cost": {"training": {k: v for k, v in training.get("cost", {}).items() if k in ("forward", "backward")}},
    }


def measures(record: Mapping[str, Any]) -> dict[str, float]:
    """The final measures of an evaluation: `test/clean`, `test/<attack>`, `test/worst`, `test_last/...`, `test/ece`.

    Of segmentation and detection they are mIoU or AP, and `test/<measure>` holds the others.
    """
    values: dict[str, float] = {}
    for weights, prefix in (("best", "test"), ("last", "test_last")):
        part = record.get(weights, {})
        rates = {"clean": part.get("clean"), **part.get("attacks", {}), "worst": part.get("worst")}
        rates |= part.get("measures", {})
        values |= {
            f"{prefix}/{name}": rate.get("value", rate["correct"] / rate["n"]) for name, rate in rates.items() if rate
        }
        if part.get("calibration"):
            values[f"{prefix}/ece"] = part["calibration"]["ece"]
    return values


def log_record(record: Mapping[str, Any], provenance: Mapping[str, Any] | None = None, **options: Any) -> None:
    """An evaluation, into the run of the training it evaluates.

    Args:
        record: `record.json`; its fingerprint is that of the training it evaluates.
        provenance: `provenance.json` and the times: commit, dirty state, device, seconds, checksum become tags.
        options: of `turncoat.tracking.open`.
    """
    settings = {"suite": record.get("settings", {}).get("suite", {})}
    tags = {"method": record.get("method"), "flags": " ".join(sorted({f["name"] for f in record.get("flags", [])}))}
    tags |= provenance_tags(provenance or {})
    name, final = key(record["cell"]), measures(record)
    with spool.open(name, record["fingerprint"], settings=settings, tags=tags, **options) as tracker:
        tracker.final(final)


def provenance_tags(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Tags from `provenance.json`; the commit also under the name that MLflow's own table shows."""
    names = ("commit", "dirty", "device", "threads", "record_sha256")
    tags = {name: provenance[name] for name in names if provenance.get(name) is not None}
    if provenance.get("commit"):
        tags["mlflow.source.git.commit"] = provenance["commit"]
    tags |= {
        f"seconds.{part}": f"{value:.1f}" for part, value in provenance.get("seconds", {}).items() if value is not None
    }
    return tags


def verdict_tags(verdicts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """`verdict.<paper>.<claim>.<data set>`: the word of `verdicts.json`, and what stands beside it there."""
    return {
        f"verdict.{verdict['paper']}.{verdict['claim']}.{verdict['dataset']}": verdict["word"]
        + (", under our reading" if verdict.get("our_reading") and verdict["word"] != "not run" else "")
        + (", with a note" if verdict.get("note") else "")
        for verdict in verdicts
    }


def log_report(reports: Path | str = "reports", **options: Any) -> None:
    """The run `report`: figures, tables, page and verdicts of `reports`; one run for each content of its summary."""
    reports = Path(reports)
    verdicts = reports / "verdicts.json"
    tags = verdict_tags(files.read_json(verdicts)) if verdicts.exists() else {}
    with spool.open("report", files.sha256(reports / "summary.json"), tags=tags, **options) as tracker:
        for path in sorted(reports.iterdir()):
            if path.is_file() or path.name in ("figures", "tables"):
                tracker.artifact(path)
