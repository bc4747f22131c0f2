"""Images and networks that the command line names: of a study, of a library, or somebody's own."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from turncoat import data, models
from turncoat.attacks import Threat
from turncoat.data.own import located
from turncoat.data.prepare import READERS, channel_statistics, prepare
from turncoat.data.splits import stratified_order
from turncoat.data.store import Split
from turncoat.data_settings import DataSettings
from turncoat.errors import TurncoatError
from turncoat.files import sha256
from turncoat.models.foreign import is_factory, source_of
from turncoat.models.given import find, given_classifier
from turncoat.settings import FOREIGN, DatasetSettings, NormalisationSettings, validate

ROBUSTBENCH = "robustbench:"
PARQUET = (".parquet", ".arrow")
DOWNLOADS = Path(".scratch/downloads")
SCHEDULE = {"epochs": 1, "lr": 0.1}  # which settings want, and nothing here is trained by


@dataclass(frozen=True)
class Images:
    """Images to be tested, and what is known of them.

    Attributes:
        test: the images to be attacked. which: "test", "validation" or "all", which of the sets that there are.
        held_out: images apart from those tested, where there are some.
        mean, std: per channel, of the training images, or of all where there are no others.
        told: what they were read from, for fingerprints. files: which say the same.
        notes: what had to be done to the images, each with its count.
    """

    test: Split
    held_out: Split | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    told: Mapping[str, Any]
    files: tuple[Path, ...] = ()
    which: str = "test"
    notes: Mapping[str, int] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.test.images.shape[1:]
        return channels, height, width


def named_images(name: str, settings: DataSettings, folder: Path) -> Images:
    """A data set of params.yaml or the shelves: out of its folder, or made anew in memory where that is not there."""
    stored = (folder / "dataset.json").exists()
    whole = data.load(folder) if stored else prepare(name, settings, DOWNLOADS / settings.source)
    told = {} if stored else {"data": settings.model_dump(), "read": dict(whole.settings)}
    files = (folder / "dataset.json",) if stored else ()
    return Images(whole.test, whole.validation, whole.classes, whole.mean, whole.std, told, files)


def own_images(path: str, size: list[int] | None) -> Images:
    """A folder of classes, a .npz, parquet or arrow files, or what `stages.download` wrote.

    The test set is taken where the images bring one, else the validation set, else all of them.

    Args:
        size: height and width that images are brought to.

    Raises:
        TurncoatError: as the readers of turncoat.data.
    """
    place = located(path)
    if (place / "dataset.json").is_file():
        return named_images(place.name, DataSettings(source="folder", path=path), place)
    rows = place.suffix in PARQUET or (place.is_dir() and any(f.suffix in PARQUET for f in place.rglob("*.*")))
    source = "npz" if place.suffix == ".npz" else "parquet" if rows else "folder"
    image_size = size[0] if size and len(size) == 1 else size
    settings = validate(DataSettings, {"source": source, "path": path, "image_size": image_size}, "--data", "images")
    raw = READERS[source](path, settings.size)
    mean, std = channel_statistics(raw.train.images)
    told = {"data": settings.model_dump(exclude={"path"}), "read": dict(raw.read)}
    if raw.test:
        test, held_out, which = raw.test, raw.validation or raw.train, "test"
    elif raw.validation:
        test, held_out, which = raw.validation, raw.train, "validation"
    else:
        test, held_out, which = _in_turns(raw.train), None, "all"
    return Images(test, held_out, raw.classes, mean, std, told, which=which, notes=raw.notes)


def _in_turns(whole: Split) -> Split:
    """The same images in an order in which the classes take turns: the first n are of all classes."""
    order = stratified_order(whole.labels, 0)
    return Split(whole.images[order], whole.labels[order])


def keywords(given: list[str]) -> dict[str, Any]:
    """`width=64 act=relu` as keywords, values read as YAML."""
    pairs = [text.partition("=") for text in given]
    if wrong := [name or text for (name, equals, _), text in zip(pairs, given, strict=True) if not (name and equals)]:
        raise TurncoatError(f"--model-args: name=value wanted (got {wrong[0]!r})")
    try:
        return {name: yaml.safe_load(value) for name, _, value in pairs}
    except yaml.YAMLError as error:
        raise TurncoatError(f"--model-args: a value cannot be read ({' '.join(str(error).split())})") from error


def normalisation(given: str | None) -> str | dict[str, list[float]] | None:
    """`data`, `library`, `none`, or `M,M,M/S,S,S` as settings write it."""
    if given is None or given in ("data", "library", "none"):
        return given
    try:
        mean, std = ([float(value) for value in part.split(",")] for part in given.split("/"))
    except ValueError as error:
        raise TurncoatError(
            f"--normalisation: data, library, none, or means and deviations such as 0.5,0.5,0.5/0.25,0.25,0.25 wanted "
            f"(got {given!r})"
        ) from error
    return {"mean": mean, "std": std}


@dataclass(frozen=True)
class Network:
    """A network by the words of the command line; nothing is read or run before `made`.

    Raises:
        TurncoatError: it names nothing that there is, or lacks what cannot be guessed.
    """

    model: str
    weights: str | None = None
    args: Mapping[str, Any] | None = None
    normalisation: Any = None
    trusted: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        beside = [
            option
            for option, value in (
                ("--weights", self.weights),
                ("--model-args", self.args),
                ("--normalisation", self.normalisation),
            )
            if value
        ]
        if self.model.endswith(".py"):
            raise TurncoatError(f"--model {self.model}: name what makes the network too, {self.model}:build say")
        if self.model.startswith(ROBUSTBENCH) or not self.named:
            if beside:
                raise TurncoatError(f"{beside[0]}: {self.model} brings its own; leave it out")
            if self.model.startswith(ROBUSTBENCH):
                _robustbench()
            elif not Path(self.model).is_file():
                raise TurncoatError(
                    f"--model {self.model}: no such weights file and no network of this name; there are "
                    f"{', '.join(models.NETWORKS)}, timm/NAME, torchvision/NAME, file.py:NAME, {ROBUSTBENCH}ID"
                )
            return
        if self.weights:
            find(self.weights)
        elif not is_factory(self.model):
            raise TurncoatError(f"--weights: wanted: {self.model} has none before they are read from a file")
        if (source := self._source()) and not source.is_file():
            raise TurncoatError(f"--model {self.model}: {source}: no such file")

    @property
    def named(self) -> bool:
        """Whether a network is built and filled, rather than read from a file of turncoat's."""
        return not Path(self.model).is_file() and (self.model in models.NETWORKS or bool(FOREIGN.fullmatch(self.model)))

    def _source(self) -> Path | None:
        try:
            found = source_of(self.model)
        except (ImportError, ValueError) as error:
            raise TurncoatError(f"--model {self.model}: {error}; is its folder the current one?") from error
        if is_factory(self.model) and found is None:
            raise TurncoatError(f"--model {self.model}: no such module; a file is named file.py:NAME")
        return found

    @property
    def files(self) -> tuple[Path, ...]:
        """What the network is made of, for fingerprints."""
        if self.model.startswith(ROBUSTBENCH):
            return ()
        if not self.named:
            return (Path(self.model),)
        own = self._source()
        return (*([own] if own else []), *([find(self.weights)] if self.weights else []))

    def made(self, images: Images, classes: int, threat: Threat, dataset: str) -> tuple[nn.Module, dict[str, Any]]:
        """The network in eval mode, and what it is, for records.

        Args:
            dataset: the name that RobustBench files its networks under, cifar10 say.
        """
        if self.model.startswith(ROBUSTBENCH):
            name = self.model.removeprefix(ROBUSTBENCH)
            return _from_robustbench(name, dataset, threat), {"name": self.model}
        if not self.named:
            return models.load(self.model, trusted=self.trusted), {"sha256": sha256(self.model)}
        if isinstance(self.normalisation, dict):
            validate(NormalisationSettings, self.normalisation, "", "--normalisation")
        given = {"weights": self.weights or "none", "normalisation": self.normalisation}
        settings = validate(
            DatasetSettings,
            {
                "data": {"source": "digits", "validation": 1},  # of no account: the images are at hand
                "threat": {"norm": threat.norm, "epsilon": threat.epsilon},
                "model": self.model,
                "model_args": dict(self.args or {}),
                "baseline": given,
                "training": SCHEDULE,
                "finetuning": SCHEDULE,
            },
            "",
            "--model",
        )
        if self.weights:
            try:
                network, told = given_classifier(settings, classes, images.shape, images.mean, images.std)
            except TurncoatError as error:
                raise TurncoatError(str(error).replace("baseline.normalisation", "--normalisation")) from error
            return network, {"name": self.model, **told}
        mean, std = [0.0] * images.shape[0], [1.0] * images.shape[0]  # the factory's whole network: images in [0, 1]
        if self.normalisation == "data":
            mean, std = list(images.mean), list(images.std)
        elif isinstance(self.normalisation, dict):
            mean, std = self.normalisation["mean"], self.normalisation["std"]
        network = models.Classifier(self.model, classes, images.shape, mean, std, self.args).eval()
        return network, {"name": self.model, "normalisation": {"mean": mean, "std": std}}


def _robustbench() -> Any:
    try:
        return importlib.import_module("robustbench.utils")
    except ModuleNotFoundError as error:
        raise TurncoatError(
            f"--model: {error.name} is not installed; RobustBench's networks need `pip install robustbench`, and the "
            "packages that it imports, of which autoattack comes from its authors' repository alone"
        ) from error


def _from_robustbench(name: str, dataset: str, threat: Threat) -> nn.Module:
    """A network of RobustBench's zoo, which downloads it; of the norm and the data set of this evaluation."""
    norm = {"linf": "Linf", "l2": "L2"}.get(threat.norm)
    if norm is None:
        raise TurncoatError(f"--model {ROBUSTBENCH}{name}: RobustBench has networks for linf and l2, not {threat.norm}")
    try:
        network: nn.Module = _robustbench().load_model(model_name=name, dataset=dataset, threat_model=norm)
    except Exception as error:  # of another library, and of its downloads
        told = " ".join(str(error).split())[:200]
        raise TurncoatError(
            f"--model {ROBUSTBENCH}{name}: not to be had for {dataset}, {norm}: {type(error).__name__}: {told}"
        ) from error
    return network.eval()
