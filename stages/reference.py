"""Keep the finished study of this checkout in reports/reference/, or build the pages of those that are kept.

    python -m stages.reference keep NAME          params.yaml, settings.json, records.tar.xz, summary.json
    python -m stages.reference build [NAME ...]   .scratch/reference/NAME/reports/report.html, tables/, verdicts.json
    python -m stages.reference atlas              reports/reference/atlas.html, atlas.json, and a table in README.md

A page is built by today's code and today's claims, from records that name the commit that made them. It is no DVC
stage; `make reference` builds all.
"""

import argparse
import shutil
from pathlib import Path

from stages.common import run
from turncoat.errors import TurncoatError

BUILT = Path(".scratch/reference")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    keeping = commands.add_parser("keep", help="pack the finished study of this checkout")
    keeping.add_argument("name", help="of the folder below reports/reference/")
    keeping.add_argument("--partial", action="store_true", help="keep it although cells are missing")
    building = commands.add_parser("build", help="unpack kept studies, judge them, make their pages")
    building.add_argument("names", nargs="*", metavar="NAME", help="all, if none is named")
    commands.add_parser("atlas", help="one page over all kept studies")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.command == "keep":
        keep(given.name, given.partial)
    elif given.command == "build":
        build(given.names)
    else:
        atlas()


def keep(name: str, partial: bool = False) -> None:
    """Pack the study that params.yaml describes into reports/reference/<name>.

    Raises:
        TurncoatError: cells are missing, and `partial` is off.
    """
    from turncoat.papers import settings_file
    from turncoat.reporting import beside, kept
    from turncoat.settings import load

    settings = load()
    found = beside.load(settings, settings_file.resolver(settings))
    for cell, why in found.missing.items():
        print(f"not run: {cell} ({why})")
    if found.missing and not partial:
        raise TurncoatError(f"{len(found.missing)} cells are missing: run `dvc repro`, or keep the rest with --partial")
    target = kept.FOLDER / name
    kept.keep(found, settings_file.contents(settings), target)
    shutil.copyfile("params.yaml", target / "params.yaml")
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {len(found.records)} cells, {size / 1e3:.0f} kB")


def build(names: list[str]) -> None:
    """Judge kept studies and write their pages below .scratch/reference/.

    Raises:
        TurncoatError: a study is not kept here, or its files are damaged.
    """
    from turncoat.papers import chapters
    from turncoat.reporting import kept, report

    there = kept.names()
    if strange := [name for name in names if name not in there]:
        raise TurncoatError(f"{kept.FOLDER / strange[0]}: no study is kept there; there are {', '.join(there)}")
    for name in names or there:
        folder, root = kept.FOLDER / name, BUILT / name
        settings, resolve = kept.read(folder)
        kept.unpack(folder, root)
        found, verdicts = report.build(settings, resolve, chapters.load(), root, kept=True)
        print(f"{root / 'reports/report.html'}: {len(found.records)} cells; {report.tally(verdicts)}", flush=True)


def atlas(folder: Path | None = None, readme: Path = Path("README.md")) -> None:
    """Judge all kept studies, write atlas.json and atlas.html into `folder`, and the headlines into `readme`.

    Raises:
        TurncoatError: the marks around the table are not in `readme`; nothing is written then.
    """
    from turncoat.files import read_json, write_atomic, write_json
    from turncoat.papers import chapters
    from turncoat.reporting import atlas, kept, study

    papers = [chapter.paper for chapter in chapters.load()]
    studies = {}
    for name in kept.names():
        settings, resolve = kept.read(kept.FOLDER / name)
        kept.unpack(kept.FOLDER / name, BUILT / name)
        studies[name] = study.load(settings, resolve, BUILT / name, kept=True)
    rows, target = atlas.table(studies, papers), folder or kept.FOLDER
    text = atlas.written(readme.read_text(), atlas.lines(papers, rows), readme)
    write_atomic(target / "atlas.html", atlas.page(papers, rows, read_json(kept.FOLDER / "costs.json")))
    write_json(target / "atlas.json", rows)
    write_atomic(readme, text)
    print(f"{target / 'atlas.html'}: {sum(row['counts'] for row in rows)} verdicts in {len(rows)} rows")


if __name__ == "__main__":
    run(main)
