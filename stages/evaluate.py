"""One trained arm against the suite of the study: per-example results, a record, its provenance.

Reads data/<dataset>/, data/perturbed/<dataset>/<seed>/ and models/<dataset>/<arm>/<seed>/; writes
reports/records/<dataset>/<arm>/<seed>/: record.json, examples.npz, provenance.json.
"""

import time

from stages.common import data_folder, known, model_folder, parse, perturbed_folder, record_folder, run


def main() -> None:
    arguments = parse(__doc__, "dataset", "arm", "seed")
    dataset, arm, seed = arguments.dataset, arguments.arm, arguments.seed

    from turncoat import data, models, tracking
    from turncoat.attacks import Threat
    from turncoat.data.batches import resident
    from turncoat.errors import TurncoatError
    from turncoat.evaluation import build_suite, evaluate
    from turncoat.evaluation.evaluate import counted
    from turncoat.evaluation.perturbed import load_perturbed
    from turncoat.evaluation.records import SCHEMA, measurements, write_examples, write_provenance
    from turncoat.evaluation.suite import Suite
    from turncoat.files import read_json, sha256, write_json
    from turncoat.settings import load
    from turncoat.training import resolve

    started = time.monotonic()
    settings = load()
    known("dataset", dataset, dict(settings.datasets))
    suite = build_suite(settings.study.suite, settings.suites[settings.study.suite])
    compute = resolve(settings.compute)
    images = data.load(data_folder(dataset))
    test = resident(images.test.images[: suite.images], images.test.labels[: suite.images], compute.device)
    threat = Threat(settings.datasets[dataset].threat.norm, settings.datasets[dataset].threat.epsilon)
    source = model_folder(dataset, arm, seed)
    training = read_json(source / "training.json")
    if training["weights"] != {name: sha256(source / f"{name}.safetensors") for name in ("best", "last")}:
        raise TurncoatError(f"{source}: the weights are not those that training.json describes; run `dvc repro`")
    stored = load_perturbed(perturbed_folder(dataset, seed))

    best = evaluate(
        models.load(source / "best.safetensors", compute.device),
        test.floats(),
        test.labels,
        threat,
        suite,
        seed=seed,
        stored=stored,
    )
    short = Suite(suite.name, {name: suite.attacks[name] for name in ("pgd-20",) if name in suite.attacks})
    last = evaluate(
        models.load(source / "last.safetensors", compute.device), test.floats(), test.labels, threat, short, seed=seed
    )

    folder = record_folder(dataset, arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "schema": SCHEMA,
        "cell": {"dataset": dataset, "arm": arm, "seed": seed},
        "method": training["settings"]["arm"]["method"],
        "fingerprint": training["fingerprint"],
        "settings": training["settings"] | {"suite": {"name": suite.name, **settings.suites[suite.name].model_dump()}},
        "threat": {"norm": threat.norm, "epsilon": threat.epsilon},
        "classes": list(images.classes),
        "best": measurements(best, images.classes),
        "last": {
            "clean": counted(last.clean),
            "attacks": {name: counted(right) for name, right in last.correct.items()},
        },
        "validation": training["validation"] | {"best_epoch": training["best_epoch"]},
        "flags": [],
        "cost": {
            "training": {name: training["cost"][name] for name in ("images", "forward", "backward")},
            "evaluation": {
                way: round(sum(passes[way] for passes in best.passes.values()), 3) for way in ("forward", "backward")
            },
            "parameters": training["parameters"],
        },
        "examples": write_examples(folder / "examples.npz", best),
        "weights": training["weights"],
    }
    write_json(folder / "record.json", record)
    provenance = write_provenance(folder, compute.device.type, {"evaluation": time.monotonic() - started})
    tracking.log_record(record, provenance)
    worst = best.worst.mean()
    print(
        f"{dataset}/{arm}/{seed}: clean {best.clean.mean():.1%}, worst case of {len(best.correct)} attacks {worst:.1%}"
    )


if __name__ == "__main__":
    run(main)
