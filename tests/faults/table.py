"""The faults this study survives, and the table of what the tests did about each.

A test, in whichever room, says which fault it brings about: `@pytest.mark.fault(7, "what is done", "what happens")`.
`python -m pytest -m "slow or fault"` prints the table; what a passed test says happens has happened.
"""

from collections.abc import Iterable
from typing import Any

FAULTS = {
    1: "kill -9 in mid-training, three times over",
    2: "a setting, the code or the data changed after a partial run",
    3: "kill while a checkpoint is being written",
    4: "damaged checkpoint or weights",
    5: "two `dvc repro` at once on the same cell",
    6: "poisoned pickle as weights or as a data set",
    7: "wrong architecture or class count in a weights file",
    8: "NaN or Inf loss or gradient in training",
    9: "NaN or zero input gradients in an attack",
    10: "random forward pass, softmax outputs, 0-255 images",
    11: "adversarial image outside the ball or outside [0, 1]",
    12: "attack that leaves side effects",
    13: "attack too weak",
    14: "epsilon <= 0, > 1, NaN; steps 0; unknown norm",
    15: "unknown key in params.yaml",
    16: "duplicate key; 1e-3, 8/255, true where a number is wanted",
    17: "arm, data set or model named but not defined",
    18: "seed 0",
    19: "truncated, wrong or hostile archive",
    20: "no network and no mirror",
    21: "labels out of range, empty split, overlap",
    22: "corrupt object in DVC's cache",
    23: "MLflow server unreachable, or dying in mid-run",
    24: "six processes at a fresh MLflow store",
    25: "full disk",
    26: "a cell's record missing or from other settings",
    27: "fewer seeds or arms than last time",
    28: "no GPU, or out of memory",
    29: "`dvc exp run --temp` and `--queue`",
    30: "a checkout that is no git repository",
    31: "other thread or worker counts",
    32: "a network with a past: memory, caches, counters, the other images of the batch",
    33: "a network of one's own: odd outputs, precisions, channels, no copy to be had",
    34: "images of one's own: corrupt, of other kinds, in other shapes, one class, duplicates",
    35: "weights whose names or shapes do not fit, a pickle or code in their place",
    36: "masks or boxes of one's own: missing, damaged, beyond the classes or the image, twice",
}


def rows(reports: Iterable[Any]) -> dict[tuple[int, str], list[Any]]:
    """(fault, what was done) -> [what happened, seconds, number of cases], out of pytest's reports."""
    found: dict[tuple[int, str], list[Any]] = {}
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name != "fault":
                continue
            number, done, happens = value
            row = found.setdefault((number, done), [happens, 0.0, 0])
            row[1] += report.duration
            row[2] += report.when == "call" or report.outcome != "passed"
            if report.outcome == "failed":
                row[0] = f"FAILED: {report.nodeid}"
            elif report.outcome == "skipped" and row[2] == 1:  # some of many cases: the others say what happens
                row[0] = f"skipped: {report.longrepr[2].removeprefix('Skipped: ')}"
            elif report.when == "call" and row[0].startswith("skipped"):
                row[0] = happens
    return dict(sorted(found.items()))


def lines(reports: Iterable[Any]) -> list[str]:
    """The table, a line each: fault by fault what was done, what happened, seconds."""
    table, out = rows(reports), []
    for number, fault in FAULTS.items():
        out.append(f"{number:2d}  {fault}")
        own = {done: row for (of, done), row in table.items() if of == number}
        for done, (happened, seconds, cases) in own.items():
            times = f" (x{cases})" if cases > 1 else ""
            out.append(f"      {done}{times}: {happened}  [{seconds:.1f} s]")
        if not own:
            out.append("      not run here")
    return out
