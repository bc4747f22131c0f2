"""What one arm has over another under each measure: paired, with its interval, from records alone. Not a stage itself.

    python -m stages.compare trades pgd                   two arms of this checkout
    python -m stages.compare trades trades@frore-purl     an arm here and in an experiment, or at a commit
    python -m stages.compare trades pgd@../other          in another checkout's folder
    python -m stages.compare trades trades@digits-default in a kept study (reports/reference/)
    python -m stages.compare trades pgd --measure pgd-20  one line

Accuracies are in percent, the first minus the second in points with its 95 % interval, seed by seed and image by image
(docs/claims.md), over the seeds that both have. Nothing runs, and nothing is written.
"""

import argparse
import signal
import tempfile
from pathlib import Path

from stages.common import run
from turncoat.errors import TurncoatError


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="ARM or ARM@PLACE")
    parser.add_argument("second", help="ARM or ARM@PLACE")
    parser.add_argument("--measure", help="this one alone: clean, worst, pgd-20, ...")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.first == given.second:
        raise TurncoatError(f"{given.first} is compared with itself; name another arm or place")

    from turncoat.reporting import side_by_side
    from turncoat.settings import load

    with tempfile.TemporaryDirectory() as temporary:
        sides = tuple(
            side_by_side.Side(
                text.replace("/", "_"), text.partition("@")[0], place(text, Path(temporary) / f"from-{n}")
            )
            for n, text in enumerate((given.first, given.second))
        )
        labels = (sides[0].label, sides[1].label)
        study = side_by_side.gathered((sides[0], sides[1]), load(), Path(temporary) / "both")
        shown = 0
        for dataset in study.settings.study.every:
            if any(not study.of(dataset, label) for label in labels):
                continue
            rows = [
                row for row in side_by_side.rows(study, dataset, labels) if given.measure in (None, row[0].split()[0])
            ]
            if rows:
                print(f"{dataset}: {labels[0]} minus {labels[1]}")
                print_table([side_by_side.HEADER, *rows])
                for remark in side_by_side.remarks(study, dataset, labels):
                    print(f"  {remark}")
                shown += len(rows)
    if not shown:
        what = f"measure {given.measure}" if given.measure else "data set with a seed"
        raise TurncoatError(f"{given.first} and {given.second} have no {what} in common")


def print_table(rows: list[list[str]]) -> None:
    """Columns as wide as they need; the first to the left, the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for first, *others in rows:
        print("  ".join([first.ljust(widths[0]), *(text.rjust(w) for text, w in zip(others, widths[1:], strict=True))]))


def place(text: str, folder: Path) -> Path:
    """The root of the records that `ARM@PLACE` speaks of; those of a commit or a kept study are put into `folder`.

    Raises:
        TurncoatError: there is no such place, or DVC's cache lacks its records.
    """
    from turncoat.reporting import kept

    arm, _, where = text.partition("@")
    if not where:
        return Path()
    if Path(where, "reports", "records").is_dir():
        return Path(where)
    if where in kept.names():
        kept.unpack(kept.FOLDER / where, folder)
        return folder
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        at = DVCFileSystem(".", rev=where)
        for path in at.glob(f"reports/records/*/{arm}/*"):
            at.get(path, str(folder / path.lstrip("/")), recursive=True)
    except (DvcException, SCMError, OSError) as error:
        raise TurncoatError(
            f"{text}: {where} is no folder with reports/records, no kept study, and no experiment or commit whose "
            f"records are in DVC's cache ({error})"
        ) from error
    return folder


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` reads no further, which is no fault
    run(main)
