"""What the other stages depend on, in a form that DVC reads fast; a study that could not run to its end stops here.

Writes data/settings.json: params.yaml merged with the papers' arms, as JSON, and the arms with all their defaults. And
for each cell two files that dvc.yaml names. data/settings/*.json is its part of these settings, by the names under
`meta.settings`. data/code/*.json has checksums of the files that its results rest on, which are those behind its
imports (`turncoat.closure`); training an arm rests on the code of its own method. Everything is checked before anything
is written, so a refused setting leaves these folders as they were.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.common import parse, run
from stages.pipeline import Cell, cells, part
from stages.places import check_places, make_places
from turncoat.closure import ROOT, checksums, closure
from turncoat.errors import TurncoatError
from turncoat.files import write_json
from turncoat.settings import Settings, load, validate
from turncoat.tuning import SUFFIX

DENSE = "-dense"  # ends the names of stages for segmentation and detection
CODE, SETTINGS = "data/code/", "data/settings/"
PARTS = {
    "analyse": ("analysis",),
    "analyse-dense": ("dense_analysis",),
    "report": ("figures", "tables", "dense_figures"),
}  # modules of a paper that a stage asks for by name


def main() -> None:
    parse(__doc__)

    from turncoat.evaluation import build_suite, dense
    from turncoat.evaluation.suite import plan_attack
    from turncoat.methods.universal import StoredSettings
    from turncoat.papers.check import check, check_folders
    from turncoat.papers.settings_file import FILE, contents

    check_folders()
    settings = load()
    check_places(settings.study.every)
    check(settings)  # a wrong setting or an incomplete paper stops here, before anything trains
    build_suite(settings.study.suite, settings.suites[settings.study.suite])
    if settings.study.dense.datasets:
        dense.plan(settings.study.dense.suite, settings.suites[settings.study.dense.suite])
    for name, raw in settings.perturbations.items():
        plan_attack(raw, f"perturbations.{name}")
    for name, raw in settings.universal.items():
        validate(StoredSettings, raw, f"universal.{name}")
    stated = contents(settings)
    wanted: dict[Path, Any] = {FILE: stated}
    for cell in cells(stated).values():
        for dep in cell.deps:
            if dep.startswith(SETTINGS):
                wanted[Path(dep)] = {name: setting(stated, name) for name in cell.settings}
            elif dep.startswith(CODE) and Path(dep) not in wanted:
                wanted[Path(dep)] = checksums(closure(modules(cell, settings)) | texts(cell.stage))
    make_places()
    for path, content in wanted.items():
        write_json(path, content)
    for path in [*Path(CODE).rglob("*.json"), *Path(SETTINGS).rglob("*.json")]:
        if path not in wanted:  # of a cell that there is no more
            path.unlink()


def setting(stated: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name; None where it is left to its default."""
    try:
        return part(stated, name)
    except TurncoatError:
        return None


def modules(cell: Cell, settings: Settings) -> list[str]:
    """Dotted names of what a cell runs: its stage, and what that imports by a name out of the settings."""
    from turncoat.papers.index import module_of

    methods: list[str] = []
    stage = cell.stage.removesuffix(SUFFIX)  # of tuned arms: the same, run on what their trials came to
    own = [
        f"turncoat.papers.{path.parent.name}.{part}"
        for part in PARTS.get(stage, ())
        for path in sorted(ROOT.glob(f"turncoat/papers/*/{part}.py"))
    ]
    if stage.endswith(DENSE):  # a stage of its own, or the same on another data set
        script = stage.replace("-", "_")
        stage = script if (ROOT / "stages" / f"{script}.py").exists() else stage.removesuffix(DENSE)
    match stage:
        case "baseline":
            methods = ["standard"]
        case "pretrain":
            methods = [settings.pretrained[name]["method"] for name in settings.study.pretrained]
        case "finetune" | "trial":
            methods = [settings.arms[cell.item["arm"]]["method"]]
    return [f"stages.{stage}", *sorted({module_of(method) for method in methods}), *own]


def texts(stage: str) -> set[Path]:
    """The files other than code that a stage's results rest on: the report's templates and what papers say."""
    if stage != "report":
        return set()
    files = [path for room in ("reporting", "papers") for path in ROOT.glob(f"turncoat/{room}/**/*")]
    return {path for path in files if path.is_file() and path.suffix not in (".py", ".pyc", ".md")}


if __name__ == "__main__":
    run(main)
