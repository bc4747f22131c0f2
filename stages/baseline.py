"""The network that every arm of a data set and seed starts from: standard training from scratch, or given weights.

Reads data/<dataset>/ and the file that `datasets.<dataset>.baseline` names, if it is there; writes
models/<dataset>/baseline/<seed>/: best and last weights, history.json, training.json.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.common import data_folder, known, model_folder, parse, run

if TYPE_CHECKING:
    from turncoat.settings import Settings


def main() -> None:
    arguments = parse(__doc__, "dataset", "seed")
    dataset, seed = arguments.dataset, arguments.seed

    from stages.training import train
    from turncoat.settings import load

    settings = load()
    known("dataset", dataset, dict(settings.datasets))
    if settings.datasets[dataset].baseline:
        give(settings, dataset, seed)
    else:
        train(settings, dataset, "baseline", seed)


def give(settings: "Settings", dataset: str, seed: int) -> None:
    """Read the weights that the data set's settings name, look at them on the validation split, publish them."""
    from stages.training import check_network, compute_settings, dataset_settings
    from turncoat import data, models, tracking
    from turncoat.attacks import Threat
    from turncoat.data.batches import resident
    from turncoat.training import fingerprint, given_cell, resolve
    from turncoat.training.validation import validator

    plan, compute, images = settings.datasets[dataset], resolve(settings.compute), data.load(data_folder(dataset))
    network, given = models.given_classifier(plan, len(images.classes), images.shape, images.mean, images.std)
    check_network(settings, dataset, network, len(images.classes))
    resolved = {
        "arm": {"method": "given"},
        "dataset": dataset_settings(plan, given),
        "compute": compute_settings(compute),
    }
    cell = {"dataset": dataset, "arm": "baseline", "seed": seed}
    inputs = [data_folder(dataset) / "dataset.json", Path(__file__)]
    if code := models.source_of(plan.model):
        inputs.append(code)
    key = fingerprint({"cell": cell, **resolved}, inputs)
    held_out = resident(images.validation.images, images.validation.labels, compute.device)
    threat = Threat(plan.threat.norm, plan.threat.epsilon)
    with tracking.open(f"{dataset}/baseline/{seed}", key, settings=resolved) as tracker:
        summary = given_cell(
            compute.place(network),
            given,
            cell=cell,
            settings=resolved,
            key=key,
            folder=model_folder(dataset, "baseline", seed),
            validate=validator(held_out, threat, seed),
        )
        tracker.final(tracking.summary(summary))
    found = summary["validation"]["best"]
    print(
        f"{dataset}/baseline/{seed}: given {given['weights']}, sha256 {given['sha256']}\n"
        f"validation clean {found['clean']:.1%}, PGD-10 {found['robust']:.1%}",
        flush=True,
    )


if __name__ == "__main__":
    run(main)
