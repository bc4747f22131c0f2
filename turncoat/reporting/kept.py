"""Studies that are kept: the records of a finished study, packed, with the settings that they are of.

A folder of reports/reference/ holds params.yaml; settings.json, the settings as they were, every arm in full;
records.tar.xz, all files that the report is made of; and summary.json. Page, tables, figures and verdicts are not kept:
today's code makes them anew, by today's claims.
"""

import io
import lzma
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from turncoat.errors import TurncoatError
from turncoat.files import read_json, write_atomic, write_json
from turncoat.reporting.measures import summary
from turncoat.reporting.study import Resolve, Section, Study
from turncoat.settings import DatasetSettings, Settings, SuiteSettings, made

FOLDER = Path("reports/reference")
RECORDS = "records.tar.xz"


def names(folder: Path = FOLDER) -> list[str]:
    """The kept studies below `folder`, sorted."""
    return sorted(path.parent.name for path in folder.glob(f"*/{RECORDS}"))


def keep(study: Study, stated: Mapping[str, Any], target: Path) -> None:
    """Write the study into the folder `target`, all but its params.yaml; the same study gives the same bytes.

    Args:
        stated: all settings, as data/settings.json has them.

    Raises:
        TurncoatError: no cell has a record.
    """
    if not study.records:
        raise TurncoatError(f"{study.root / 'reports/records'}: no cell is finished: there is nothing to keep")
    write_json(target / "settings.json", settings_of(stated))
    write_atomic(target / RECORDS, packed(study))
    write_json(target / "summary.json", summary(study))


def settings_of(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Of all settings, those of the study's own arms, data sets and suites."""
    study = stated["study"]
    dense = study.get("dense") or {"datasets": [], "arms": [], "suite": ""}
    arms = [*study["arms"], *study.get("tuning", {}).get("arms", [])]
    own = {
        "arms": list(dict.fromkeys([*arms, *dense["arms"]])),
        "pretrained": study.get("pretrained", []),
        "datasets": [*study["datasets"], *dense["datasets"]],
        "suites": [study["suite"], *[dense["suite"]] * bool(dense["datasets"])],
    }
    kept = {section: {name: stated[section][name] for name in there} for section, there in own.items() if there}
    of_each = {dataset: {"arms": arms, "pretrained": own["pretrained"]} for dataset in study["datasets"]}
    of_each |= {dataset: {"arms": dense["arms"], "pretrained": []} for dataset in dense["datasets"]}
    resolved = {
        section: {
            dataset: {name: of[dataset][name] for name in names[section]}
            for dataset, names in of_each.items()
            if names[section]
        }
        for section, of in stated["resolved"].items()
    }
    says = {arm: text for arm, text in stated["says"].items() if arm in own["arms"]}
    rest = {name: stated[name] for name in ("perturbations", "universal") if stated.get(name)}
    return {"study": study, **kept, **rest, "says": says, "resolved": resolved}


def read(folder: Path) -> tuple[Settings, Resolve]:
    """The settings that the kept records are of, and its arms in full.

    Raises:
        TurncoatError: settings.json is missing or has a fault.
    """
    path = folder / "settings.json"
    values = read_json(path)
    says, resolved = values.pop("says"), values.pop("resolved")
    # a setting that has gone since is passed over: the records say what they were made with
    values["suites"] = {name: _known(SuiteSettings, suite) for name, suite in values["suites"].items()}
    values["datasets"] = {name: _known(DatasetSettings, plan) for name, plan in values["datasets"].items()}

    def resolve(dataset: str, arm: str, section: Section = "arms") -> dict[str, Any]:
        found: dict[str, Any] = resolved[section][dataset][arm]
        return found

    return made({"perturbations": {}} | values, says, {}, path), resolve


def _known(model: type[SuiteSettings] | type[DatasetSettings], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in model.model_fields}


def packed(study: Study) -> bytes:
    """The files that the report of the study is made of, as .tar.xz: sorted, without times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(_files(study), key=lambda path: (path.name, path)):  # what is alike lies side by side
            entry, content = tarfile.TarInfo(path.as_posix()), (study.root / path).read_bytes()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return lzma.compress(buffer.getvalue(), preset=6 | lzma.PRESET_EXTREME)


def _files(study: Study) -> Iterator[Path]:
    """Paths below the study's root, those that are there."""
    wanted: list[Path] = []
    for cell in study.records:
        folder = study.path(cell, "").relative_to(study.root)
        wanted += [folder / name for name in ("record.json", "provenance.json", "examples.npz")]
        wanted.append(Path("models", cell.dataset, cell.arm, str(cell.seed), "history.json"))
        wanted.append(Path("reports", "times", cell.dataset, cell.arm, f"{cell.seed}.json"))
    for dataset in study.datasets:
        wanted += [Path("reports", "analysis", dataset, name) for name in ("analysis.json", "arrays.npz")]
        perturbed = [Path("data", "perturbed", dataset, str(seed)) for seed in study.settings.study.seeds]
        wanted += [folder / "perturbed.json" for folder in perturbed]
        wanted.append(perturbed[0] / "examples.npz")  # figures show images of the first seed alone
    return (path for path in wanted if (study.root / path).is_file())


def unpack(folder: Path, root: Path) -> None:
    """Put the kept files below `root`, in the place of all that is there.

    Raises:
        TurncoatError: the archive is missing or damaged.
    """
    shutil.rmtree(root, ignore_errors=True)
    try:
        with tarfile.open(folder / RECORDS, "r:xz") as archive:
            archive.extractall(root, filter="data")
    except (OSError, lzma.LZMAError, EOFError, tarfile.TarError) as error:
        raise TurncoatError(f"{folder / RECORDS}: cannot be unpacked ({error}); get it anew with git") from error
