"""Train what arms build on besides the baseline: purifiers, and classifiers trained otherwise, once for all these arms.

`study.pretrained` names them, `pretrained` in params.yaml describes them as it does arms. Reads data/<dataset>/ and
models/<dataset>/baseline/<seed>/; writes models/<dataset>/pretrained/<seed>/: a folder for each, with the files of a
trained arm, and pretrained.json with the checksums of their weights.
"""

from stages.common import parse, pretrained_folder, run


def main() -> None:
    arguments = parse(__doc__, "dataset", "seed")

    from stages.training import train
    from turncoat.files import sha256, write_json
    from turncoat.settings import load

    settings = load()
    folder, names = pretrained_folder(arguments.dataset, arguments.seed), settings.study.pretrained
    for name in names:
        train(settings, arguments.dataset, name, arguments.seed, section="pretrained")
    write_json(folder / "pretrained.json", {name: sha256(folder / name / "best.safetensors") for name in names})


if __name__ == "__main__":
    run(main)
