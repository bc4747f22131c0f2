"""The files that `python -m turncoat.evaluation` writes: once before the result is checked, and once more after."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turncoat.attacks import Threat
from turncoat.errors import TurncoatError
from turncoat.evaluation.keeper import Keeper, save_adversarial
from turncoat.evaluation.model_info import model_info
from turncoat.evaluation.recording import brought_record, flag_rows, measurements, write_examples, write_provenance
from turncoat.evaluation.results import Evaluation
from turncoat.files import write_json

SLUG = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Files:
    """Where results go; None: nowhere.

    Attributes:
        json: all measurements and flags. robustbench: RobustBench's model-info form.
        save: the worst adversarial image of each that fell, a .npz.
        record: a folder, for a record that the report of a study shows beside its arms, under the folder's name.
    """

    json: Path | None = None
    robustbench: Path | None = None
    save: Path | None = None
    record: Path | None = None

    def check(self, dataset: str | None) -> None:
        """Refuse what could not be written, or shown, in the end.

        Args:
            dataset: the name of the data set in params.yaml; None: images that no study knows.
        """
        for path in (self.json, self.robustbench, self.save):
            if path is not None and path.is_dir():
                raise TurncoatError(f"{path}: a folder; name a file in it")
        for path in (self.json, self.robustbench, self.save, self.record):
            if path is not None and path is not self.record and not path.absolute().parent.is_dir():
                raise TurncoatError(f"{path}: there is no folder {path.absolute().parent}; make it first")
        named = [path.resolve() for path in (self.json, self.robustbench, self.save) if path is not None]
        if twice := next((path for path in named if named.count(path) > 1 and not path.is_char_device()), None):
            raise TurncoatError(f"{twice}: named for two results; each wants a file of its own")
        if self.record is None:
            return
        if self.record.exists() and not self.record.is_dir():
            raise TurncoatError(f"--record {self.record}: a file; a folder is wanted, such as records/theirs")
        if not SLUG.fullmatch(self.record.name):
            raise TurncoatError(
                f"--record {self.record}: the report shows the network under the folder's name, which may hold small "
                f"letters, digits, - and _ (got {self.record.name!r})"
            )
        if dataset is None:
            raise TurncoatError(
                "--record: the report compares on the images of a study: --data must be a name under `datasets` in "
                "params.yaml"
            )


@dataclass(frozen=True)
class About:
    """What an evaluation was of, as its files say it.

    Attributes:
        name: as the command line names the network. told: file, checksum, normalisation.
        parameters: how many the network has. dataset: a name in params.yaml, or that of the images.
        source: what RobustBench calls the data set. met: which of its sets, test, validation or all.
        suite: its name and the settings that it ran with.
        command: what made the files.
    """

    name: str
    told: Mapping[str, Any]
    parameters: int
    dataset: str
    source: str
    met: str
    classes: Sequence[str]
    threat: Threat
    suite: Mapping[str, Any]
    seed: int
    fingerprint: str
    device: str
    command: str


def write(files: Files, result: Evaluation, about: About, keeper: Keeper | None, shape: tuple[int, ...]) -> None:
    """Write all files that are wanted, each whole or not at all; `shape`: (c, h, w) of an image."""
    if files.json:
        told = about.told["sha256"] if list(about.told) == ["sha256"] else dict(about.told)  # the file says the rest
        threat = {"norm": about.threat.norm, "epsilon": about.threat.epsilon}
        found = measurements(result, about.classes) | {"flags": flag_rows(result.flags)}
        head = {"model": told, "threat": threat, "suite": about.suite["name"], "met": about.met}
        write_json(files.json, head | found)
    if files.robustbench:
        write_json(files.robustbench, model_info(result, about.name, about.source, about.threat))
    if files.save and keeper is not None:
        save_adversarial(files.save, keeper.found(result, shape))
    if files.record:
        files.record.mkdir(parents=True, exist_ok=True)
        cell = {"dataset": about.dataset, "arm": files.record.name, "seed": about.seed}
        record = brought_record(result, cell, about)
        record["examples"] = write_examples(files.record / "examples.npz", result)
        write_json(files.record / "record.json", record)
        write_provenance(files.record, about.device)
