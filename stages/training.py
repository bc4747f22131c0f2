"""Training a cell, as the baseline and the finetune stage do it (no stage itself)."""

from typing import Any

from stages.common import data_folder, known, model_folder, pretrained_folder
from turncoat import data, models, tracking
from turncoat.attacks import Threat
from turncoat.data.batches import batches_an_epoch, resident
from turncoat.methods.base import Task
from turncoat.papers.arms import Section, arm_settings, method_class, schedule
from turncoat.papers.index import module_of
from turncoat.settings import ArmSettings, Settings, TrainingSettings
from turncoat.training import fingerprint, initialised, resolve, train_cell
from turncoat.training.validation import validator


def train(settings: Settings, dataset: str, arm: str, seed: int, section: Section = "arms") -> None:
    """Train `arm` ("baseline": standard training from scratch) of a section of params.yaml and publish its files.

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
    compute = resolve(settings.compute)
    images = data.load(data_folder(dataset))
    threat = Threat(of_dataset.threat.norm, of_dataset.threat.epsilon)
    inputs = [data_folder(dataset) / "dataset.json"]
    foundation = {name: pretrained_folder(dataset, seed) / name / "best.safetensors" for name in plan.builds_on}
    inputs += foundation.values()
    pretrained = {name: compute.place(models.load(path)) for name, path in foundation.items()}
    method = method_class(plan.method)(plan, Task(threat, len(images.classes), pretrained))

    if plan.start == "baseline":
        inputs.append(model_folder(dataset, "baseline", seed) / "best.safetensors")
        network = models.load(inputs[-1])
    else:
        network = initialised(
            seed,
            lambda: models.Classifier(of_dataset.model, len(images.classes), images.shape, images.mean, images.std),
        )
    train_split = resident(images.train.images, images.train.labels, compute.device)
    train_split = method.prepare(compute.place(network), train_split, seed)
    compute.place(method.model)  # a method may train another network than the one it was given
    an_epoch = batches_an_epoch(train_split, steps.batch_size, steps.steps) * min(steps.batch_size, len(train_split))
    compute = compute.for_run(steps.epochs * an_epoch * (1 + method.attack_steps))

    folder = model_folder(dataset, arm, seed) if section == "arms" else pretrained_folder(dataset, seed) / arm
    arm = arm if section == "arms" else f"{section}-{arm}"
    cell = {"dataset": dataset, "arm": arm, "seed": seed}
    resolved: dict[str, Any] = {
        "arm": plan.model_dump() | {"training": steps.model_dump()},
        "dataset": {"threat": of_dataset.threat.model_dump(), "model": of_dataset.model},
        "compute": {
            "device": compute.device.type,
            "precision": compute.precision,
            "channels_last": compute.channels_last,
            "compile": compute.compile,
        },
    }
    print(
        f"{dataset}/{arm}/{seed}: {plan.method} on {compute.device}, {compute.precision}"
        f"{', compiled' * bool(compute.compile)}, {steps.epochs} epochs",
        flush=True,
    )
    key = fingerprint({"cell": cell, **resolved}, inputs, [__name__, module_of(plan.method)])
    with tracking.open(f"{dataset}/{arm}/{seed}", key, settings=resolved) as tracker:
        summary = train_cell(
            method,
            train_split,
            steps,
            compute,
            cell=cell,
            settings=resolved,
            key=key,
            folder=folder,
            validate=validator(
                resident(images.validation.images, images.validation.labels, compute.device), threat, seed
            ),
            log=tracker.log,
        )
        tracker.final(tracking.summary(summary))
    best = summary["validation"]["best"]
    print(
        f"best epoch {summary['best_epoch']}: validation clean {best['clean']:.1%}, PGD-10 {best['robust']:.1%}",
        flush=True,
    )
