"""One trained arm against the suite of the study: per-example results, flags, a record, its provenance.

Reads data/<dataset>/, data/perturbed/<dataset>/<seed>/ and models/<dataset>/<arm>/<seed>/; writes
reports/records/<dataset>/<arm>/<seed>/: record.json, examples.npz, provenance.json; and what it took to
reports/times/<dataset>/<arm>/<seed>.json. A killed run goes on after the last finished batch of the attack it was in.
"""

import time
from contextlib import nullcontext

from stages.common import data_folder, known, model_folder, parse, perturbed_folder, record_folder, run, times_file


def main() -> None:
    arguments = parse(__doc__, "dataset", "arm", "seed")
    dataset, arm, seed = arguments.dataset, arguments.arm, arguments.seed

    from turncoat import data, models, tracking
    from turncoat.attacks import Threat
    from turncoat.data.batches import resident
    from turncoat.errors import TurncoatError
    from turncoat.evaluation import build_suite, evaluate
    from turncoat.evaluation.journal import Journal, evaluation_key
    from turncoat.evaluation.perturbed import load_perturbed, load_predictions
    from turncoat.evaluation.recording import cell_record, write_examples, write_provenance, write_times
    from turncoat.evaluation.results import SECOND_LOOK
    from turncoat.files import read_json, sha256, write_json
    from turncoat.settings import load
    from turncoat.training import Scratch, duration, parallel, resolve

    started = time.monotonic()
    settings = load()
    parallel.launch(settings.compute)
    known("dataset", dataset, dict(settings.datasets))
    chosen = settings.study.suite
    suite = build_suite(chosen, settings.suites[chosen])
    compute = resolve(settings.compute)
    images = data.load(data_folder(dataset))
    test = resident(images.test.images[: suite.images], images.test.labels[: suite.images], compute.device)
    held_out = resident(images.validation.images, images.validation.labels, compute.device)
    threat = Threat(settings.datasets[dataset].threat.norm, settings.datasets[dataset].threat.epsilon)
    source, perturbed, folder = (
        model_folder(dataset, arm, seed),
        perturbed_folder(dataset, seed),
        record_folder(dataset, arm, seed),
    )
    training = read_json(source / "training.json")
    if training["weights"] != {name: sha256(source / f"{name}.safetensors") for name in ("best", "last")}:
        raise TurncoatError(f"{source}: the weights are not those that training.json describes; run `dvc repro`")
    stored, predictions = load_perturbed(perturbed), load_predictions(perturbed)[: len(test)]

    described = {"name": chosen, **settings.suites[chosen].model_dump()}
    inputs = [data_folder(dataset) / "dataset.json", perturbed / "perturbed.json", source / "training.json"]
    described_by = {"suite": described, "threat": vars(threat), "device": compute.device.type}
    key = evaluation_key(described_by, inputs, ["stages.evaluate"])
    scratch = Scratch(key, f"evaluating {dataset}/{arm}/{seed}")
    with nullcontext() if parallel.rank() else scratch:
        parallel.barrier()  # rank 0 holds the folder, in which each has a journal
        journal = Journal(scratch.folder / f"journal{f'-{parallel.rank()}' * bool(parallel.rank())}")
        if len(journal):
            print(f"{dataset}/{arm}/{seed}: going on after {len(journal)} finished pieces", flush=True)
        results = {
            which: evaluate(
                compute.place(models.load(source / f"{which}.safetensors", trusted={settings.datasets[dataset].model})),
                test.floats(),
                test.labels,
                threat,
                suite if which == "best" else suite.short(),
                seed=seed,
                stored=stored,
                held_out=(held_out.floats(), held_out.labels),
                journal=journal,
                scope=which,
                checks=which == "best",
            )
            for which in ("best", "last")
        }
        if parallel.rank():
            return  # rank 0 has the same results, and writes them
        best, labels = results["best"], images.test.labels[: len(test)]
        folder.mkdir(parents=True, exist_ok=True)
        record = cell_record(training, described, threat, images.classes, results, predictions == labels)
        record["examples"] = write_examples(folder / "examples.npz", best)
        write_json(folder / "record.json", record)
        scratch.clear()
    spent = {
        "tuning": duration(
            key for row in training.get("tuning", {}).get("trials", []) for key in row["fingerprints"] if key
        ),
        "training": duration([training["fingerprint"]]),
        "evaluation": time.monotonic() - started,
    }
    seconds = {what: value for what, value in spent.items() if value}  # unknown where weights came out of a cache
    provenance = write_provenance(folder, compute.device.type) | write_times(times_file(dataset, arm, seed), seconds)
    tracking.log_record(record, provenance)
    for flag in best.flags:
        print(f"{dataset}/{arm}/{seed}: {flag.name}{' BLOCKS' * flag.blocks}: {flag.detail}", flush=True)
    looks = sum(name.startswith(SECOND_LOOK) for name in best.in_worst)  # at networks that looked too robust
    met = f"{len(best.in_worst) - looks} attacks" + f" and {looks} second looks" * bool(looks)
    print(f"{dataset}/{arm}/{seed}: clean {best.clean.mean():.1%}, worst case of {met} {best.worst.mean():.1%}")


if __name__ == "__main__":
    run(main)
