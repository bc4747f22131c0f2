"""Any network against a suite, on any images.

    python -m turncoat.evaluation --model best.safetensors --data cifar10
    python -m turncoat.evaluation --model resnet20 --weights net.th --normalisation 0.5,0.5,0.5/0.2,0.2,0.2 --data pets
    python -m turncoat.evaluation --model my_net.py:build --weights w.pth --data set.npz --epsilon 8/255
    python -m turncoat.evaluation --model segmenter.safetensors --data camvid

The threat is the data set's in params.yaml unless --norm and --epsilon say otherwise. A killed run goes on after its
last finished batch when it is started again in the same folder. The guide: docs/own-network.md
"""

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turncoat.errors import TurncoatError

if TYPE_CHECKING:
    from turncoat.evaluation.results import Evaluation
    from turncoat.evaluation.suite import Suite
    from turncoat.settings import SuiteSettings

PARAMS = Path("params.yaml")
SETS = {  # what was attacked, in words: the set by which a network was trained says nothing
    "test": "test images of",
    "validation": "validation images, for there is no test set, of",
    "all": "images, for none are set apart as a test set, of",
}
ALONE = Path(__file__).with_name("alone.yaml")  # where there is no params.yaml


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m turncoat.evaluation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        required=True,
        help="a weights file of turncoat, a network's name (resnet20, timm/NAME, torchvision/NAME), a factory of your "
        "own (file.py:NAME, package.module:NAME), or robustbench:ID",
    )
    parser.add_argument("--weights", help="a state dict or safetensors for a network that --model names")
    parser.add_argument("--model-args", nargs="+", default=[], metavar="NAME=VALUE", help="keywords for that network")
    parser.add_argument(
        "--normalisation", help="what the weights were trained behind: MEANS/DEVIATIONS, data, library or none"
    )
    parser.add_argument("--classes", type=int, help="logits of the network (as many as the images have classes)")
    parser.add_argument(
        "--data",
        help="a folder of classes, a .npz, parquet files, or a name under `datasets` (./NAME is a folder); beside "
        "--dataset: the folder that holds data sets and perturbed/",
    )
    parser.add_argument("--dataset", help="a name under `datasets` in params.yaml")
    parser.add_argument("--image-size", nargs="+", type=int, metavar="SIDE", help="side, or height and width, to fit")
    parser.add_argument(
        "--suite", help="a name under `suites` in params.yaml (standard; for masks and boxes study.dense.suite)"
    )
    parser.add_argument("--params", type=Path, help="params.yaml here, else turncoat's suites and data sets alone")
    parser.add_argument(
        "--images", type=int, help="the first so many test images, of a folder of all classes in turn (the suite's)"
    )
    parser.add_argument("--batch-size", type=int, help="images an attack works on at a time (the suite's)")
    parser.add_argument("--norm", choices=("linf", "l2", "l1"))
    parser.add_argument("--epsilon", type=radius, help="radius for images in [0, 1]; 8/255 is a number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--black-box", action="store_true", help="leave out what needs gradients")
    parser.add_argument("--json", type=Path, help="write all measurements and flags to this file")
    parser.add_argument("--robustbench", type=Path, help="write RobustBench's model-info form to this file")
    parser.add_argument("--save", type=Path, help="write the worst adversarial image of each that fell to this .npz")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FOLDER",
        help="write a record there; named in study.beside, the report shows it beside the study's arms",
    )
    try:
        _run(parser.parse_args())
    except TurncoatError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def radius(text: str) -> float:
    """A number or a fraction of two."""
    numerator, _, denominator = text.partition("/")
    return float(numerator) / (float(denominator or 1) or float("nan"))  # validated with the rest of the threat


def _threat(given: argparse.Namespace, ours: Any, name: str) -> dict[str, Any]:
    """Norm and epsilon as asked for, or the data set's; `ours` is None for images of one's own."""
    if ours is None:
        if given.epsilon is None:
            raise TurncoatError("--epsilon: wanted for images of your own, such as --epsilon 8/255")
        return {"norm": given.norm or "linf", "epsilon": given.epsilon}
    if given.norm not in (None, ours.norm) and given.epsilon is None:
        raise TurncoatError(f"--norm {given.norm}: {name}'s epsilon is one of {ours.norm}; give --epsilon too")
    return {"norm": given.norm or ours.norm, "epsilon": ours.epsilon if given.epsilon is None else given.epsilon}


def _check_numbers(given: argparse.Namespace) -> None:
    for option, least in (("images", 1), ("batch_size", 1), ("classes", 2)):
        value = getattr(given, option)
        if value is not None and value < least:
            raise TurncoatError(f"--{option.replace('_', '-')}: at least {least} wanted (got {value})")
    if given.image_size and len(given.image_size) > 2:
        raise TurncoatError("--image-size: a side, or height and width, wanted")


def _as_run(asked: "SuiteSettings", met: "Suite", given: argparse.Namespace) -> dict[str, Any]:
    """The suite's settings without what is left out, as the command line changes them."""
    run = asked.model_dump()
    run["attacks"] = {name: plan for name, plan in run["attacks"].items() if name in met.attacks}
    run |= {"radii": run["radii"] if met.radii else [], "universal": run["universal"] if met.universal else {}}
    for option in ("images", "batch_size"):
        run[option] = getattr(given, option) or run[option]
    return run


def _run(given: argparse.Namespace) -> None:
    from turncoat.attacks import Threat
    from turncoat.data.batches import resident
    from turncoat.evaluation import build_suite, dense_command, evaluate
    from turncoat.evaluation.brought import Network, keywords, named_images, normalisation, own_images
    from turncoat.evaluation.journal import Journal, evaluation_key
    from turncoat.evaluation.keeper import Keeper
    from turncoat.evaluation.outside import as_network
    from turncoat.evaluation.perturbed import load_perturbed
    from turncoat.evaluation.suite import check_name
    from turncoat.evaluation.written import About, Files, write
    from turncoat.settings import ThreatSettings, load, validate
    from turncoat.training import Scratch, resolve

    settings = load(given.params or (PARAMS if PARAMS.exists() else ALONE))
    if dense_command.is_dense(given.model):
        dense_command.run(given, settings)
        return
    given.suite = given.suite or "standard"
    if given.dataset is None and given.data is None:
        raise TurncoatError("--data: wanted: a folder of classes, a .npz, or a name such as cifar10")
    name = given.dataset or (given.data if given.data in settings.datasets else None)
    shelf = Path(given.data if given.dataset and given.data else "data")
    if given.dataset:
        check_name(given.dataset, settings.datasets, "--dataset")
    check_name(given.suite, settings.suites, "--suite")
    _check_numbers(given)
    files = Files(given.json, given.robustbench, given.save, given.record)
    files.check(name)
    asked = _threat(given, settings.datasets[name].threat if name else None, str(name))
    threat = Threat(**validate(ThreatSettings, asked, "--threat", "command line").model_dump())
    suite = build_suite(given.suite, settings.suites[given.suite])
    trusted = frozenset({settings.datasets[name].model} if name else ())
    chosen = Network(
        given.model, given.weights, keywords(given.model_args), normalisation(given.normalisation), trusted
    )
    compute = resolve(settings.compute)
    source = settings.datasets[name].data.source if name else Path(given.data).stem

    images = (
        named_images(name, settings.datasets[name].data, shelf / name)
        if name
        else own_images(given.data, given.image_size)
    )
    count = given.images or suite.images
    made, told = chosen.made(images, given.classes or len(images.classes), threat, source)
    network = compute.place(made)
    test = resident(images.test.images[:count], images.test.labels[:count], compute.device)
    classes = f"{len(images.classes)} classes ({', '.join(images.classes[:5])}{', ...' * (len(images.classes) > 5)})"
    print(
        f"{given.data or name}: {len(test.labels):,} {SETS[images.which]} {len(images.test):,}, {classes}", flush=True
    )
    for note, number in images.notes.items():
        print(f"{number:,} {note}", flush=True)
    if chosen.named and not given.weights:
        print(f"no --weights: the network is as {given.model} makes it", flush=True)
    perturbed = shelf / "perturbed" / str(name) / str(given.seed)
    stored = load_perturbed(perturbed) if name and (perturbed / "perturbed.json").exists() else {}
    missing = [attack for attack, plan in suite.attacks.items() if plan.stored and plan.stored not in stored]
    if missing:
        where = f"{perturbed} holds no such images" if name else "a study alone stores images for transfer attacks"
        print(f"left out: {', '.join(missing)}: {where}", flush=True)
        suite = replace(suite, attacks={key: plan for key, plan in suite.attacks.items() if key not in missing})
    if suite.universal and images.held_out is None:
        print("left out: universal: it needs images apart from those tested", flush=True)
        suite, missing = replace(suite, universal={}), [*missing, "universal"]
    _, _, met, _ = as_network(network, suite, given.black_box)  # refused before anything is measured
    held_out = None
    if suite.universal and images.held_out is not None:
        apart = resident(images.held_out.images, images.held_out.labels, compute.device)
        held_out = (apart.floats(), apart.labels)

    described = {"suite": settings.suites[given.suite].model_dump(), "images": count, "left_out": missing, **asked}
    inputs = [*chosen.files, *images.files, *([perturbed / "perturbed.json"] if stored else [])]
    described |= {"seed": given.seed, "device": str(compute.device), "images_of": dict(images.told), "network": told}
    described |= {"save": bool(given.save), "batch_size": given.batch_size, "black_box": given.black_box}
    described |= {"model": given.model, "args": dict(chosen.args or {})}
    key = evaluation_key(described, inputs, ["turncoat.evaluation.__main__"])
    about = About(
        name=given.model,
        told=told,
        parameters=sum(value.numel() for value in network.parameters()),
        dataset=str(name),
        source=source,
        met=images.which,
        classes=[*images.classes, *map(str, range(len(images.classes), given.classes or 0))],
        threat=threat,
        suite={"name": given.suite, **_as_run(settings.suites[given.suite], met, given)},
        seed=given.seed,
        fingerprint=key,
        device=compute.device.type,
        command=shlex.join(["python", "-m", "turncoat.evaluation", *sys.argv[1:]]),
    )
    with Scratch(key) as scratch:
        keeper = Keeper(scratch.folder / "adversarial") if given.save else None

        def written(found: "Evaluation") -> None:
            write(files, found, about, keeper, images.shape)

        result = evaluate(
            network,
            test.floats(),
            test.labels,
            threat,
            suite,
            seed=given.seed,
            batch_size=given.batch_size,
            keep=keeper or False,
            black_box=given.black_box,
            stored=stored,
            held_out=held_out,
            journal=Journal(scratch.folder / "journal"),
            measured=written,
        )
        written(result)
        scratch.clear()

    print(f"{'clean':<20} {result.clean.mean():7.2%}  of {len(result.clean)} images")
    for name, right in result.correct.items():
        note = "" if name in result.in_worst else "  (another threat)"
        print(f"{name:<20} {right.mean():7.2%}{note}")
    print(f"{'worst case':<20} {result.worst.mean():7.2%}  {threat.norm}, epsilon {threat.epsilon:.5g}")
    for flag in result.flags:
        whose = f" ({flag.attack})" if flag.attack else ""
        print(f"{'DO NOT BELIEVE' if flag.blocks else 'settled'}: {flag.name}{whose}: {flag.detail}")


if __name__ == "__main__":
    main()
