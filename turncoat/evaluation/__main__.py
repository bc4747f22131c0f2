"""Any weights file against a suite: python -m turncoat.evaluation --model best.safetensors --dataset cifar10

The threat is the data set's in params.yaml unless --norm and --epsilon say otherwise. Without a study only the data are
needed: `python -m stages.download --dataset NAME`. A killed run goes on after its last finished batch when it is
started again in the same folder.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from turncoat.errors import TurncoatError


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m turncoat.evaluation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, type=Path, help="a weights file (safetensors)")
    parser.add_argument("--dataset", required=True, help="a name under `datasets` in params.yaml")
    parser.add_argument("--suite", default="standard", help="a name under `suites` in params.yaml (standard)")
    parser.add_argument("--params", default="params.yaml", type=Path)
    parser.add_argument("--data", default="data", type=Path, help="the folder that holds data sets and perturbed/")
    parser.add_argument("--images", type=int, help="the first so many test images (the suite's)")
    parser.add_argument("--norm", choices=("linf", "l2", "l1"))
    parser.add_argument("--epsilon", type=radius, help="radius for images in [0, 1]; 8/255 is a number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all measurements and flags to this file")
    try:
        _run(parser.parse_args())
    except TurncoatError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def radius(text: str) -> float:
    """A number or a fraction of two."""
    numerator, _, denominator = text.partition("/")
    return float(numerator) / (float(denominator or 1) or float("nan"))  # validated with the rest of the threat


def _run(given: argparse.Namespace) -> None:
    from turncoat import data, models
    from turncoat.attacks import Threat
    from turncoat.data.batches import resident
    from turncoat.evaluation import build_suite, evaluate
    from turncoat.evaluation.journal import Journal, evaluation_key
    from turncoat.evaluation.perturbed import load_perturbed
    from turncoat.evaluation.records import flag_rows, measurements
    from turncoat.evaluation.suite import check_name
    from turncoat.files import sha256, write_json
    from turncoat.settings import ThreatSettings, load, validate
    from turncoat.training import Scratch, resolve

    settings = load(given.params)
    check_name(given.dataset, settings.datasets, "--dataset")
    check_name(given.suite, settings.suites, "--suite")
    ours = settings.datasets[given.dataset].threat
    asked = {"norm": given.norm or ours.norm, "epsilon": ours.epsilon if given.epsilon is None else given.epsilon}
    if given.norm not in (None, ours.norm) and given.epsilon is None:
        raise TurncoatError(f"--norm {given.norm}: {given.dataset}'s epsilon is one of {ours.norm}; give --epsilon too")
    if given.images is not None and given.images < 1:
        raise TurncoatError(f"--images: at least 1 wanted (got {given.images})")
    threat = Threat(**validate(ThreatSettings, asked, "--threat", "command line").model_dump())
    suite = build_suite(given.suite, settings.suites[given.suite])
    count = given.images or suite.images
    compute = resolve(settings.compute)
    folder, perturbed = given.data / given.dataset, given.data / "perturbed" / given.dataset / str(given.seed)
    network = compute.place(models.load(given.model, trusted={settings.datasets[given.dataset].model}))
    images = data.load(folder)
    test = resident(images.test.images[:count], images.test.labels[:count], compute.device)
    apart = resident(images.validation.images, images.validation.labels, compute.device)
    stored = load_perturbed(perturbed) if (perturbed / "perturbed.json").exists() else {}
    missing = [name for name, plan in suite.attacks.items() if plan.stored and plan.stored not in stored]
    if missing:
        print(f"left out: {', '.join(missing)}: {perturbed} holds no such images", flush=True)
        suite = replace(suite, attacks={name: plan for name, plan in suite.attacks.items() if name not in missing})

    described = {"suite": settings.suites[given.suite].model_dump(), "images": count, "left_out": missing, **asked}
    inputs = [given.model, folder / "dataset.json", *([perturbed / "perturbed.json"] if stored else [])]
    described |= {"seed": given.seed, "device": str(compute.device)}
    key = evaluation_key(described, inputs, ["turncoat.evaluation.__main__"])
    with Scratch(key) as scratch:
        result = evaluate(
            network,
            test.floats(),
            test.labels,
            threat,
            suite,
            seed=given.seed,
            stored=stored,
            held_out=(apart.floats(), apart.labels),
            journal=Journal(scratch.folder / "journal"),
        )
        found = measurements(result, images.classes) | {"flags": flag_rows(result)}
        if given.json:
            write_json(given.json, {"model": sha256(given.model), "threat": asked, "suite": given.suite, **found})
        scratch.clear()

    print(f"{'clean':<20} {result.clean.mean():7.2%}  of {len(result.clean)} images")
    for name, right in result.correct.items():
        note = "" if name in result.in_worst else "  (another threat)"
        print(f"{name:<20} {right.mean():7.2%}{note}")
    print(f"{'worst case':<20} {result.worst.mean():7.2%}  {threat.norm}, epsilon {threat.epsilon:.5g}")
    for flag in result.flags:
        about = f" ({flag.attack})" if flag.attack else ""
        print(f"{'DO NOT BELIEVE' if flag.blocks else 'settled'}: {flag.name}{about}: {flag.detail}")


if __name__ == "__main__":
    main()
