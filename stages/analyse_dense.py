"""What lies behind the measures of segmentation and detection, for the figures: the trained networks of the first seed.

Reads data/<dataset>/ and the dense arms in models/<dataset>/; writes reports/analysis/<dataset>/: analysis.json, and
arrays.npz for what is longer than a line (`<paper>-<name>`). No verdict rests on it.
"""

from pathlib import Path

from stages.common import data_folder, known, model_folder, parse, run


def main() -> None:
    dataset = parse(__doc__, "dataset").dataset

    import io
    from functools import partial
    from typing import Any

    import numpy as np
    import torch

    from turncoat import data, models
    from turncoat.attacks import Threat
    from turncoat.data.batches import resident
    from turncoat.files import read_json, sha256, write_atomic, write_json
    from turncoat.papers import PAPERS
    from turncoat.papers.material import Arm, DenseMaterial
    from turncoat.papers.parts import part
    from turncoat.settings import load
    from turncoat.training import resolve

    settings = load()
    known("dataset", dataset, dict(settings.datasets))
    compute, seed = resolve(settings.compute), settings.study.seeds[0]
    split = data.load(data_folder(dataset))

    def network(arm: str) -> torch.nn.Module:
        return compute.place(models.load(model_folder(dataset, arm, seed) / "best.safetensors"))

    folders = {arm: model_folder(dataset, arm, seed) for arm in settings.study.dense.arms}
    trained = {arm: folder for arm, folder in folders.items() if (folder / "training.json").exists()}
    plans = {arm: read_json(folder / "training.json")["settings"]["arm"] for arm, folder in trained.items()}
    material = DenseMaterial(
        arms={arm: Arm(plan, partial(network, arm)) for arm, plan in plans.items()},
        test=resident(split.test.images, split.test.labels, compute.device, split.task),
        threat=Threat(settings.datasets[dataset].threat.norm, settings.datasets[dataset].threat.epsilon),
        seed=seed,
    )
    # the report passes over an arm whose record is of other weights
    sums = {arm: sha256(folder / "best.safetensors") for arm, folder in trained.items()}
    found = {"dataset": dataset, "seed": seed, "attack": "PGD-20", "weights": sums}
    arrays: dict[str, np.typing.NDArray[Any]] = {}
    for paper in PAPERS:
        if material.of(paper) and (analysis := part(paper, "dense_analysis")):
            found[paper], own = analysis.analyse(material)
            arrays |= {f"{paper}-{name}": values for name, values in own.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    folder = Path("reports") / "analysis" / dataset
    write_atomic(folder / "arrays.npz", buffer.getvalue())
    write_json(folder / "analysis.json", found)
    print(f"{dataset}/{seed}: analysed {', '.join(material.arms)}", flush=True)


if __name__ == "__main__":
    run(main)
