"""Adversarial images against a baseline of segmentation or detection: the first test images, for figures.

Reads data/<dataset>/ and models/<dataset>/baseline/<seed>/; writes data/perturbed/<dataset>/<seed>/: images, targets,
attacked images and each test image's loss (examples.npz), and the baseline's measures (perturbed.json).
"""

from stages.common import data_folder, known, model_folder, parse, perturbed_folder, run

SHOWN = 8  # test images kept as examples for the figures
BATCH = 50


def main() -> None:
    arguments = parse(__doc__, "dataset", "seed")
    dataset, seed = arguments.dataset, arguments.seed

    from typing import Any

    import numpy as np

    from turncoat import data, models
    from turncoat.attacks import Threat, ascent
    from turncoat.data.batches import resident
    from turncoat.evaluation.dense import evaluate_dense, plan
    from turncoat.evaluation.perturbed import save_examples
    from turncoat.randomness import generator
    from turncoat.settings import load
    from turncoat.training import resolve
    from turncoat.training.agreement import PRIMARY

    settings = load()
    known("dataset", dataset, dict(settings.datasets))
    compute, suite = resolve(settings.compute), settings.suites[settings.study.dense.suite]
    images = data.load(data_folder(dataset))
    test = resident(images.test.images[: suite.images], images.test.labels[: suite.images], compute.device, images.task)
    threat = Threat(settings.datasets[dataset].threat.norm, settings.datasets[dataset].threat.epsilon)
    network: Any = compute.place(models.load(model_folder(dataset, "baseline", seed) / "best.safetensors"))
    attacks = plan(settings.study.dense.suite, suite)
    shown, strongest = test.floats(0, SHOWN), max(attacks.values(), key=lambda attack: attack.steps)
    adversarial = ascent(
        network,
        shown,
        test.labels[:SHOWN],
        threat,
        lambda outputs, targets, index: network.losses(outputs, targets),
        steps=strongest.steps,
        relative_step=strongest.relative_step,
        start=strongest.start,
        generator=generator(seed, "perturb", device=compute.device),
    )
    found = evaluate_dense(
        network, test.floats(), test.labels, images.task, len(images.classes), threat, {}, batch_size=BATCH
    )
    arrays = {"images": shown, "targets": test.labels[:SHOWN], "adversarial": adversarial}
    save_examples(
        perturbed_folder(dataset, seed),
        {name: value.cpu().numpy() for name, value in arrays.items()} | {"loss": np.asarray(found.losses["clean"])},
        {"task": images.task, "n": len(test), "attack": strongest.model_dump(), "clean": found.measures("clean")},
    )
    print(f"{dataset}/{seed}: baseline {PRIMARY[images.task]} {found.primary('clean'):.1%}", flush=True)


if __name__ == "__main__":
    run(main)
