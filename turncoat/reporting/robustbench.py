"""Model-info files in RobustBench's form, one a cell of the data sets that RobustBench knows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from turncoat.files import write_atomic, write_json
from turncoat.reporting.cell import Cell
from turncoat.reporting.claims import Paper
from turncoat.reporting.record import Record
from turncoat.reporting.study import Study

DATASETS = ("cifar10", "cifar100", "imagenette")
AUTOATTACK = "autoattack"  # the suite's name for the standard version
ABOUT = f"<dataset>/<threat>/<arm>-<seed>.json: model info in RobustBench's form, of cells of {', '.join(DATASETS)}\n"
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def write(study: Study, papers: Sequence[Paper], folder: Path) -> None:
    """`<dataset>/<threat>/<arm>-<seed>.json` for every cell with a record whose data set RobustBench knows.

    The folder is never empty, of which DVC would warn: README.txt says what it holds.
    """
    write_atomic(folder / "README.txt", ABOUT)
    for cell, record in study.records.items():
        if study.settings.datasets[cell.dataset].data.source in DATASETS and record.task == "classification":
            norm = NORMS[record.threat.norm]
            write_json(folder / cell.dataset / norm / f"{cell.arm}-{cell.seed}.json", info(study, papers, cell, record))


def info(study: Study, papers: Sequence[Paper], cell: Cell, record: Record) -> dict[str, Any]:
    """One model-info entry. Accuracies are strings in percent, as there; what was not measured is null.

    `reported` is the paper's own AutoAttack figure; it may come from another network and is null where none is known.
    """
    paper = next((paper for paper in papers if paper.name == record.method), None)
    reported = (
        [value.value for value in paper.reported if value.arm == cell.arm and value.metric == AUTOATTACK]
        if paper
        else []
    )
    network = study.settings.datasets[cell.dataset].model
    count = record.best.count(AUTOATTACK)
    return {
        "link": next(iter(paper.citation.links.values()), None) if paper else None,
        "name": (paper.citation.title or paper.short) if paper else cell.arm,
        "authors": paper.citation.authors if paper else None,
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": cell.dataset,
        "venue": f"{paper.citation.venue} {paper.citation.year}" if paper else None,
        "architecture": network,
        "eps": _fraction(record.threat.epsilon) if record.threat.norm == "linf" else f"{record.threat.epsilon:g}",
        "clean_acc": f"{100 * record.best.clean.accuracy:.2f}",
        "reported": f"{reported[0]:.2f}" if reported else None,
        "autoattack_acc": f"{100 * count.accuracy:.2f}" if count else None,
        "n": record.best.clean.n,
        "unreliable": any(flag.blocks and flag.attack in (None, "autoattack") for flag in record.flags),
        "flags": [flag.name for flag in record.flags],
        "footnote": f"Re-run: {study.command(cell)}",
    }


def _fraction(epsilon: float) -> str:
    """`8/255` where epsilon is a whole number of grey levels, else the number."""
    levels = epsilon * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-6 else f"{epsilon:g}"
