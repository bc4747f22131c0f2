"""Adversarial images against a baseline: what transfer attacks and figures are made of.

Reads data/<dataset>/ and models/<dataset>/baseline/<seed>/; writes data/perturbed/<dataset>/<seed>/: <name>.npy for
each entry of `perturbations` in params.yaml, examples.npz for the figures, and perturbed.json with what they achieve.
For each entry of `universal`, a perturbation towards each class is made on training images; examples.npz holds it as
`universal-<name>` (classes, c, h, w), perturbed.json how many test images of which class it sends there. Under `oracle`
stands what one step towards the true label gives under each shift, the bound of all calibrators.
"""

from stages.common import data_folder, known, model_folder, parse, perturbed_folder, run

SHOWN = 10  # images in examples.npz
BATCH = 500
ORACLE_STEP, ORACLE_SEVERITIES = 32 / 255, (1, 3, 5)  # as far as the calibrators of the default arms may go


def main() -> None:
    arguments = parse(__doc__, "dataset", "seed")
    dataset, seed = arguments.dataset, arguments.seed

    import torch

    from turncoat import data, models
    from turncoat.attacks import Threat
    from turncoat.attacks.threat import check_inside
    from turncoat.data.batches import resident
    from turncoat.evaluation.perturbed import save_perturbed
    from turncoat.evaluation.suite import plan_attack
    from turncoat.methods.shifting import oracle
    from turncoat.methods.universal import StoredSettings, class_perturbations, reached, stratified
    from turncoat.randomness import generator
    from turncoat.settings import load, validate
    from turncoat.training import resolve

    settings = load()
    known("dataset", dataset, dict(settings.datasets))
    compute = resolve(settings.compute)
    suite = settings.suites[settings.study.suite]
    images_of = data.load(data_folder(dataset))
    stored, classes = images_of.test, len(images_of.classes)
    test = resident(stored.images[: suite.images], stored.labels[: suite.images], compute.device)
    threat = Threat(settings.datasets[dataset].threat.norm, settings.datasets[dataset].threat.epsilon)
    weights = model_folder(dataset, "baseline", seed) / "best.safetensors"
    network = compute.place(models.load(weights, trusted={settings.datasets[dataset].model}))

    made, predicted = {}, {}
    for name, raw in settings.perturbations.items():
        attack = plan_attack(raw, f"perturbations.{name}")
        parts = []
        for number, start in enumerate(range(0, len(test), BATCH)):
            images = test.floats(start, start + BATCH)
            labels = test.labels[start : start + BATCH]
            source = generator(seed, "perturb", name, number, device=compute.device)
            parts.append(attack(network, images, labels, attack.threat or threat, source))
            check_inside(parts[-1], images, None if attack.spatial else attack.threat or threat, name)
        made[name] = torch.cat(parts)
        with torch.no_grad():
            predicted[name] = torch.cat([network(part).argmax(1) for part in parts])

    shown = next(reversed(made))  # the last one listed is the one that the figures show
    with torch.no_grad():
        clean = torch.cat([network(batch).argmax(1) for batch in test.floats().split(BATCH)])
    examples = {
        "images": test.floats(0, SHOWN),
        "labels": test.labels[:SHOWN],
        "adversarial": made[shown][:SHOWN],
        "prediction": clean[:SHOWN],
        "adversarial_prediction": predicted[shown][:SHOWN],
    }
    plans = {name: validate(StoredSettings, raw, f"universal.{name}") for name, raw in settings.universal.items()}
    train = resident(images_of.train.images, images_of.train.labels, compute.device)
    universal = {}
    for name, plan in plans.items():
        from_images = stratified(train, plan.images, seed)
        changes = class_perturbations(network, from_images, threat, range(classes), plan, seed)
        examples[f"universal-{name}"] = changes
        universal[name] = [reached(network, test, change, target, classes) for target, change in enumerate(changes)]
    helped = oracle(network, test, ORACLE_STEP, ORACLE_SEVERITIES, seed)

    accuracy = {name: int((prediction == test.labels).sum()) for name, prediction in predicted.items()}
    save_perturbed(
        perturbed_folder(dataset, seed),
        made,
        clean,
        {name: value.cpu().numpy() for name, value in examples.items()},
        {
            "attacks": settings.perturbations,
            "n": len(test),
            "correct": accuracy,
            "shown": shown,
            "universal": {name: plans[name].model_dump() | {"targets": rows} for name, rows in universal.items()},
            "oracle": {"epsilon": ORACLE_STEP, "shifts": helped},
        },
    )
    for name, rows in universal.items():
        share = sum(row["reached"] for row in rows) / sum(row["n"] for row in rows)
        print(f"{dataset}/{seed}: universal perturbations {name} reach {share:.1%}", flush=True)
    print(f"{dataset}/{seed}: baseline right on {accuracy} of {len(test)}", flush=True)


if __name__ == "__main__":
    run(main)
