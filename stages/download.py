"""Get a data set, verify it, split it: digits from scikit-learn, one's own images from a path, others by download.

Raw files come from .scratch/downloads/<source>/ where they were fetched before, else from the folder that the
environment variable TURNCOAT_MIRROR names, else from their canonical addresses. None is opened before its size and
checksum were compared. Images of one's own (source folder, npz, parquet) are read where `path` says.

Writes data/<dataset>/: uint8 images and labels of train, validation and test, and dataset.json.
"""

from pathlib import Path

from stages.common import data_folder, known, parse, run


def main() -> None:
    arguments = parse(__doc__, "dataset")

    from turncoat.data import save
    from turncoat.data.prepare import prepare
    from turncoat.settings import load

    datasets = load().datasets
    known("dataset", arguments.dataset, dict(datasets))
    plan = datasets[arguments.dataset]
    dataset = prepare(arguments.dataset, plan.data, Path(".scratch/downloads") / plan.data.source, plan.task)
    save(dataset, data_folder(arguments.dataset))
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in dataset.splits.items())
    print(f"{dataset.name}: {sizes} images of {'×'.join(map(str, dataset.shape))}, {len(dataset.classes)} classes")


if __name__ == "__main__":
    run(main)
