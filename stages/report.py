"""Tables, figures, verdicts and the page, out of the records of the cells that params.yaml names.

Reads params.yaml, data/settings.json, the papers' folders, reports/records/, reports/analysis/, the training histories
in models/ and the examples in data/perturbed/.
Writes into reports/: summary.json (percent, means over seeds), verdicts.json, tables/, figures/, curves/, robustbench/
and report.html. A cell without a record, or with one from other settings, is "not run"; nothing stands in for it.
"""

import argparse

from stages.common import run


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partial", action="store_true", help="accept missing cells: exit with status 0 all the same")
    return parser.parse_args()


def main() -> None:
    partial = arguments().partial

    from turncoat import tracking
    from turncoat.errors import TurncoatError
    from turncoat.papers import chapters, settings_file
    from turncoat.reporting import report
    from turncoat.settings import load

    settings = load()

    study, verdicts = report.build(settings, settings_file.resolver(settings), chapters.load())
    print(
        f"{len(study.records)} of {len(study.records) + len(study.missing)} cells; {report.tally(verdicts)}", flush=True
    )
    tracking.log_report()
    tracking.flush()
    for cell, why in study.missing.items():
        print(f"not run: {cell} ({why}); {study.command(cell)}")
    if study.missing and not partial:
        raise TurncoatError("cells are missing: run `dvc repro`, or accept a partial report with --partial")


if __name__ == "__main__":
    run(main)
