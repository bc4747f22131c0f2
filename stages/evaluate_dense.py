"""One trained arm on a data set of segmentation or detection: measures clean and attacked, a record, its provenance.

Reads data/<dataset>/ and models/<dataset>/<arm>/<seed>/; writes reports/records/<dataset>/<arm>/<seed>/: record.json,
examples.npz, provenance.json; and what it took to reports/times/<dataset>/<arm>/<seed>.json. A killed run goes on after
the last finished batch of the attack it was in.
"""

import time

from stages.common import data_folder, known, model_folder, parse, record_folder, run, times_file


def main() -> None:
    arguments = parse(__doc__, "dataset", "arm", "seed")
    dataset, arm, seed = arguments.dataset, arguments.arm, arguments.seed

    from turncoat import data, models, tracking
    from turncoat.attacks import Threat
    from turncoat.data.batches import resident
    from turncoat.errors import TurncoatError
    from turncoat.evaluation.dense import evaluate_dense, plan
    from turncoat.evaluation.dense_recording import dense_record, write_dense_examples
    from turncoat.evaluation.journal import Journal, evaluation_key
    from turncoat.evaluation.recording import write_provenance, write_times
    from turncoat.evaluation.results import Flag
    from turncoat.files import read_json, sha256, write_json
    from turncoat.settings import load
    from turncoat.training import Scratch, duration, resolve
    from turncoat.training.agreement import PRIMARY

    started = time.monotonic()
    settings = load()
    known("dataset", dataset, dict(settings.datasets))
    chosen = settings.study.dense.suite
    suite = settings.suites[chosen]
    attacks = plan(chosen, suite)
    compute = resolve(settings.compute)
    images = data.load(data_folder(dataset))
    test = resident(images.test.images[: suite.images], images.test.labels[: suite.images], compute.device, images.task)
    threat = Threat(settings.datasets[dataset].threat.norm, settings.datasets[dataset].threat.epsilon)
    source, folder = model_folder(dataset, arm, seed), record_folder(dataset, arm, seed)
    training = read_json(source / "training.json")
    if training["weights"] != {name: sha256(source / f"{name}.safetensors") for name in ("best", "last")}:
        raise TurncoatError(f"{source}: the weights are not those that training.json describes; run `dvc repro`")
    baseline = read_json(model_folder(dataset, "baseline", seed) / "training.json")["parameters"]

    described = {"name": chosen, **suite.model_dump()}
    inputs = [data_folder(dataset) / "dataset.json", source / "training.json"]
    described_by = {"suite": described, "threat": vars(threat), "device": compute.device.type}
    key = evaluation_key(described_by, inputs, ["stages.evaluate_dense"])
    with Scratch(key, f"evaluating {dataset}/{arm}/{seed}") as scratch:
        journal = Journal(scratch.folder / "journal")
        if len(journal):
            print(f"{dataset}/{arm}/{seed}: going on after {len(journal)} finished pieces", flush=True)
        results = {
            which: evaluate_dense(
                compute.place(models.load(source / f"{which}.safetensors")),
                test.floats(),
                test.labels,
                images.task,
                len(images.classes),
                threat,
                attacks if which == "best" else {},
                seed=seed,
                batch_size=suite.batch_size if isinstance(suite.batch_size, int) else 50,
                journal=journal,
                scope=which,
            )
            for which in ("best", "last")
        }
        best = results["best"]
        if training["parameters"] != baseline:
            detail = f"{training['parameters']:,} parameters are deployed, the baseline has {baseline:,}"
            best.flags.append(Flag("larger", detail, blocks=False))
        folder.mkdir(parents=True, exist_ok=True)
        record = dense_record(training, described, threat, images.classes, results)
        record["examples"] = write_dense_examples(folder / "examples.npz", best)
        write_json(folder / "record.json", record)
        scratch.clear()
    spent = {"training": duration([training["fingerprint"]]), "evaluation": time.monotonic() - started}
    seconds = {what: value for what, value in spent.items() if value}  # unknown where weights came out of a cache
    provenance = write_provenance(folder, compute.device.type) | write_times(times_file(dataset, arm, seed), seconds)
    tracking.log_record(record, provenance)
    for flag in best.flags:
        print(f"{dataset}/{arm}/{seed}: {flag.name}{' BLOCKS' * flag.blocks}: {flag.detail}", flush=True)
    measured = ", ".join(f"{name} {best.primary(name):.1%}" for name in best.counts)
    print(f"{dataset}/{arm}/{seed}: {PRIMARY[images.task]} {measured}")


if __name__ == "__main__":
    run(main)
