"""Rebuild the MLflow store from the files of the study, after sending what could not be sent before.

Reads models/, reports/ and the rows that wait in .scratch/tracking/; writes to $MLFLOW_TRACKING_URI, or to mlflow.db in
this folder. Running it twice changes nothing. `make mlflow` runs it; it is no DVC stage.
"""

from pathlib import Path

from stages.common import parse, run, times_file
from turncoat import tracking
from turncoat.errors import TurncoatError
from turncoat.files import read_json
from turncoat.reporting.cell import Cell
from turncoat.tracking import paths, relay


def main() -> None:
    parse(__doc__)
    if not paths.enabled():
        raise TurncoatError("TURNCOAT_TRACKING=off: tracking is turned off; unset it to rebuild the MLflow store")

    from turncoat.tracking.forwarder import Forwarder, short

    here, uri = paths.folder(), paths.destination()
    broken: list[str] = []
    try:
        late = new = 0
        for folder in sorted({here, *(path for path in here.parent.glob("*") if path.is_dir())}):
            waiting = len(paths.spools(folder))
            with relay.take_over(folder):
                forwarder = Forwarder(folder, uri)
                forwarder.send()
            late += waiting - len(paths.spools(folder))
            new += forwarder.made
        with relay.take_over(here):
            forwarder = Forwarder(here, uri)
            forwarder.send()  # before anything is written: no rows are heaped up for a server that is down
            told = retell(broken)
            forwarder.send()
            new += forwarder.made
    except TurncoatError:
        raise
    except Exception as error:
        raise TurncoatError(f"MLflow: {short(error)}; the rows stay in {here.parent}") from error
    print(f"MLflow: {late} waiting files sent, {told} runs told from their files, {new} of all these were new")
    print(f"Store: {paths.without_password(uri)}; `mlflow ui` shows the one of this folder")
    if broken:
        raise TurncoatError("\n".join(broken))


def retell(broken: list[str]) -> int:
    """Write the rows of every cell on disk and of the report. Returns the number of runs; faults go to `broken`."""
    told = set()
    for path in [
        *sorted(Path("reports/records").glob("*/*/*/record.json")),
        *sorted(Path("models").glob("*/*/*/training.json")),
        *sorted(Path("models").glob("*/pretrained/*/*/training.json")),
    ]:
        recorded = path.name == "record.json"
        dataset, arm, seed, *name = path.parts[2 if recorded else 1 : -1]
        at = path.stat().st_mtime
        trained, evaluated = Cell(dataset, arm, int(seed)).stages
        try:
            if recorded:  # first: the training that is on disk has the last word on what is current
                beside = [path.with_name("provenance.json"), times_file(dataset, arm, int(seed))]
                known = {key: value for file in beside if file.exists() for key, value in read_json(file).items()}
                tracking.log_record(read_json(path), known, stage=evaluated, at=at)
            else:
                history = read_json(path.with_name("history.json"))
                made_by = {"baseline": f"baseline@{dataset}-{seed}", "pretrained": f"pretrain@{dataset}-{seed}"}
                stage = made_by.get(arm, trained)
                tracking.log_training(read_json(path), history, stage=stage, at=at)
            told.add((dataset, arm, seed, *name))
        except TurncoatError as error:
            broken.append(str(error))
        except (KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
            broken.append(f"{path}: not in the form that the stages write ({error!r}); `dvc repro` makes it anew")
    if Path("reports/summary.json").exists():
        tracking.log_report("reports", stage="report", at=Path("reports/summary.json").stat().st_mtime)
        told.add(("report",))
    return len(told)


if __name__ == "__main__":
    run(main)
