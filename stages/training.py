"""Training a cell, as the baseline and the finetune stage do it (no stage itself)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from stages.common import data_folder, known, model_folder, pretrained_folder
from turncoat import data, models, tracking
from turncoat.attacks import Threat
from turncoat.data.batches import batches_an_epoch, resident
from turncoat.errors import TurncoatError
from turncoat.files import read_json
from turncoat.methods.base import Task
from turncoat.papers.arms import Section, arm_settings, method_class, schedule
from turncoat.papers.index import module_of
from turncoat.settings import ArmSettings, DatasetSettings, Settings, TrainingSettings
from turncoat.training import Compute, copied_cell, fingerprint, initialised, parallel, resolve, train_cell
from turncoat.training.agreement import PRIMARY
from turncoat.training.dense_validation import dense_validator
from turncoat.training.validation import validator


def check_network(settings: Settings, dataset: str, network: nn.Module, classes: int) -> None:
    """Refuse a network that some arm of the study cannot work on, before its baseline is trained.

    Raises:
        TurncoatError: the arm, and what the network lacks.
    """
    plan = settings.datasets[dataset]
    task = Task(Threat(plan.threat.norm, plan.threat.epsilon), classes)
    named: list[tuple[Section, str]] = [("arms", arm) for arm in settings.study.arms_on(dataset)]
    pretrained = settings.study.pretrained if plan.task == "classification" else []
    for section, arm in [*named, *(("pretrained", name) for name in pretrained)]:
        of_arm = arm_settings(settings, arm, section)
        try:
            method_class(of_arm.method)(of_arm, task).check(network)
        except ValueError as error:
            raise TurncoatError(
                f"{section}.{arm} cannot work with datasets.{dataset}.model {plan.model}: {error}"
            ) from error


def dataset_settings(plan: DatasetSettings, given: Mapping[str, Any]) -> dict[str, Any]:
    """Threat and network of a data set, as a cell's files say them; `given`: about a baseline not trained here."""
    said = {"threat": plan.threat.model_dump(), "model": plan.model}
    return said | {key: value for key, value in (("model_args", plan.model_args), ("baseline", given)) if value}


def compute_settings(compute: Compute) -> dict[str, Any]:
    """How it is computed, `auto` made explicit, as a cell's files say it."""
    same = {name: getattr(compute, name) for name in ("precision", "channels_last", "compile")}
    return {"device": compute.device.type} | same | parallel.described()


def train(
    settings: Settings,
    dataset: str,
    arm: str,
    seed: int,
    section: Section = "arms",
    *,
    founded_on: int | None = None,
    folder: Path | None = None,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Train `arm` ("baseline": standard training from scratch), publish its files; the content of training.json.

    Args:
        founded_on: seed of the baseline, and of what else the arm builds on; None: the cell's own.
        folder: where the files go; None: the cell's own. about: what training.json says besides.

    Raises:
        TurncoatError: a name that is not defined, settings out of range, damaged inputs, a loss that is not finite.
    """
    known("dataset", dataset, dict(settings.datasets))
    of_dataset = settings.datasets[dataset]
    plan: ArmSettings
    steps: TrainingSettings
    if arm == "baseline":
        plan, steps = ArmSettings(method="standard", start="scratch"), of_dataset.training
    else:
        plan, steps = arm_settings(settings, arm, section), schedule(settings, dataset, arm, section)
    plan = plan.model_copy(update={"start": plan.start or of_dataset.start})
    method_of = method_class(plan.method)
    divides = method_of.divides and of_dataset.task == "classification"
    parallel.launch(settings.compute, "" if divides else f"{plan.method}: {parallel.ALONE}")
    compute = resolve(settings.compute)
    images = data.load(data_folder(dataset))
    kind = (len(images.classes), images.shape, images.mean, images.std)
    threat = Threat(of_dataset.threat.norm, of_dataset.threat.epsilon)
    inputs = [data_folder(dataset) / "dataset.json"]
    founded_on = seed if founded_on is None else founded_on
    foundation = {name: pretrained_folder(dataset, founded_on) / name / "best.safetensors" for name in plan.builds_on}
    inputs += foundation.values()
    if code := models.source_of(of_dataset.model):
        inputs.append(code)
    pretrained = {
        name: compute.place(models.load(path, trusted={of_dataset.model})) for name, path in foundation.items()
    }
    method = method_of(plan, Task(threat, len(images.classes), pretrained))

    given: dict[str, Any] = {}  # what the baseline's files say of weights that were not trained here
    if plan.start == "baseline":
        source = model_folder(dataset, "baseline", founded_on)
        inputs.append(source / "best.safetensors")
        network = models.load(inputs[-1], trusted={of_dataset.model})
        given = read_json(source / "training.json").get("given", {})
    else:
        fresh = models.OF_TASK[images.task]
        network = initialised(seed, lambda: fresh(of_dataset.model, *kind, of_dataset.model_args))
    if arm == "baseline":
        check_network(settings, dataset, network, len(images.classes))
    train_split = resident(images.train.images, images.train.labels, compute.device, images.task)
    train_split = method.prepare(compute.place(network), train_split, seed)
    compute.place(method.model)  # a method may train another network than the one it was given
    an_epoch = batches_an_epoch(train_split, steps.batch_size, steps.steps) * min(steps.batch_size, len(train_split))
    if images.task != "classification":  # anchors and losses of a library are not for a compiler
        compute = replace(compute, compile=False)
    compute = compute.for_run(steps.epochs * an_epoch * (1 + method.attack_steps))

    own = model_folder(dataset, arm, seed) if section == "arms" else pretrained_folder(dataset, seed) / arm
    arm = arm if section == "arms" else f"{section}-{arm}"
    cell = {"dataset": dataset, "arm": arm, "seed": seed}
    resolved: dict[str, Any] = {
        "arm": plan.model_dump() | {"training": steps.model_dump()},
        "dataset": dataset_settings(of_dataset, given),
        "compute": compute_settings(compute),
    }
    print(
        f"{dataset}/{arm}/{seed}: {plan.method} on {compute.device}, {compute.precision}"
        f"{', compiled' * bool(compute.compile)}, {steps.epochs} epochs",
        flush=True,
    )
    modules = [__name__, module_of(plan.method)]
    key = fingerprint({"cell": cell, **resolved}, inputs, modules)
    shared = section == "arms" and arm != "baseline" and not folder and parallel.size() == 1
    names = settings.study.pretrained if shared else []
    twin = next((name for name in names if _is_twin(name, cell, resolved, inputs, modules)), None)
    with tracking.open(f"{dataset}/{arm}/{seed}", key, settings=resolved) as tracker:
        written: dict[str, Any] = {"cell": cell, "settings": resolved, "key": key, "log": tracker.log, "about": about}
        written["folder"] = folder or own
        if twin:
            print(f"as pretrained.{twin} was trained: its weights are taken", flush=True)
            summary = copied_cell(method, pretrained_folder(dataset, seed) / twin, {of_dataset.model}, **written)
        else:
            validate = _validator(images, compute, threat, seed)
            summary = train_cell(method, train_split, steps, compute, validate=validate, **written)
        tracker.final(tracking.summary(summary))
    best = summary["validation"]["best"]
    what = "" if images.task == "classification" else f"{PRIMARY[images.task]} "
    measured = f"validation {what}clean {best['clean']:.1%}, PGD-10 {best['robust']:.1%}"
    print(f"best epoch {summary['best_epoch']}: {measured}", flush=True)
    return summary


def _is_twin(
    name: str, cell: Mapping[str, Any], resolved: Mapping[str, Any], inputs: Sequence[Path], modules: Sequence[str]
) -> bool:
    """Whether `pretrained.<name>` was trained for this data set and seed by the same settings, inputs and code."""
    file = pretrained_folder(cell["dataset"], cell["seed"]) / name / "training.json"
    twin = {"cell": {**cell, "arm": f"pretrained-{name}"}, **resolved}
    return file.exists() and bool(read_json(file)["fingerprint"] == fingerprint(twin, inputs, modules))


def _validator(
    images: data.Dataset, compute: Compute, threat: Threat, seed: int
) -> Callable[[nn.Module], dict[str, float]]:
    """What is looked at on the validation split: accuracy, or the measure of the data set's task."""
    split = resident(images.validation.images, images.validation.labels, compute.device, images.task)
    if images.task == "classification":
        return validator(split, threat, seed)
    return dense_validator(split, threat, seed, len(images.classes))
