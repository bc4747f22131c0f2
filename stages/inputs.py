"""What the other stages depend on, in a form that DVC reads fast; a study that could not run to its end stops here.

Writes data/settings.json: params.yaml merged with the papers' arms, as JSON, and the arms with all their defaults. And
every data/code/*.json that dvc.yaml names: checksums of the files that a stage's results rest on, which are those
behind its imports (`turncoat.closure`). Training an arm rests on the code of its own method. DVC reads params and
writes dvc.lock anew for every stage: with YAML, and with folders in place of the checksums, that cost seconds a cell.
"""

from pathlib import Path

from stages.common import parse, run
from stages.pipeline import Cell, cells
from stages.places import check_places
from turncoat.closure import ROOT, checksums, closure
from turncoat.files import write_json
from turncoat.settings import Settings, load
from turncoat.tuning import SUFFIX

CODE = "data/code/"
PARTS = {"analyse": ("analysis",), "report": ("figures", "tables")}  # modules of a paper that a stage asks for by name


def main() -> None:
    parse(__doc__)

    from turncoat.evaluation import build_suite
    from turncoat.papers.check import check, check_folders
    from turncoat.papers.settings_file import FILE, contents

    check_folders()
    settings = load()
    check_places(settings.study.datasets)
    check(settings)  # a wrong setting or an incomplete paper stops here, before anything trains
    build_suite(settings.study.suite, settings.suites[settings.study.suite])
    stated = contents(settings)
    write_json(FILE, stated)
    wanted = {dep: cell for cell in cells(stated).values() for dep in cell.deps if dep.startswith(CODE)}
    for dep, cell in wanted.items():
        write_json(Path(dep), checksums(closure(modules(cell, settings)) | texts(cell.stage)))


def modules(cell: Cell, settings: Settings) -> list[str]:
    """Dotted names of what a cell runs: its stage, and what that imports by a name out of the settings."""
    from turncoat.papers.index import module_of

    methods: list[str] = []
    stage = cell.stage.removesuffix(SUFFIX)  # of tuned arms: the same, run on what their trials came to
    match stage:
        case "baseline":
            methods = ["standard"]
        case "pretrain":
            methods = [settings.pretrained[name]["method"] for name in settings.study.pretrained]
        case "finetune" | "trial":
            methods = [settings.arms[cell.item["arm"]]["method"]]
    own = [
        f"turncoat.papers.{path.parent.name}.{part}"
        for part in PARTS.get(stage, ())
        for path in sorted(ROOT.glob(f"turncoat/papers/*/{part}.py"))
    ]
    return [f"stages.{stage}", *sorted({module_of(method) for method in methods}), *own]


def texts(stage: str) -> set[Path]:
    """The files other than code that a stage's results rest on: the report's templates and what papers say."""
    if stage != "report":
        return set()
    files = [path for room in ("reporting", "papers") for path in ROOT.glob(f"turncoat/{room}/**/*")]
    return {path for path in files if path.is_file() and path.suffix not in (".py", ".pyc", ".md")}


if __name__ == "__main__":
    run(main)
