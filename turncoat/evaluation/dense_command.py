"""`python -m turncoat.evaluation` for weights of a network for segmentation or detection.

python -m turncoat.evaluation --model models/scenes-masks/standard/0/best.safetensors --data scenes-masks
"""

import argparse
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from turncoat.errors import TurncoatError
from turncoat.settings import Settings

NEEDS = ("weights", "normalisation", "classes", "image_size", "save", "record", "robustbench")  # of classifiers alone


def is_dense(model: str) -> bool:
    """Whether it is a weights file of such a network; what is no weights file at all is for others to say."""
    try:
        with safe_open(model, framework="np") as file:
            header = json.loads((file.metadata() or {}).get("turncoat", "{}"))
    except (OSError, SafetensorError, ValueError):
        return False
    return header.get("spec", {}).get("kind") in ("segmenter", "detector")


def run(given: argparse.Namespace, settings: Settings) -> None:
    """Evaluate it on a data set of params.yaml, print its measures, and write them where --json says.

    Raises:
        TurncoatError: an option that has no meaning here, no such data set, or weights of another task.
    """
    from turncoat import data, models
    from turncoat.attacks import Threat
    from turncoat.data.batches import resident
    from turncoat.evaluation.dense import evaluate_dense, plan
    from turncoat.evaluation.dense_recording import dense_measurements
    from turncoat.evaluation.recording import flag_rows
    from turncoat.files import sha256, write_json
    from turncoat.training import resolve

    for option in NEEDS:
        if getattr(given, option):
            raise TurncoatError(f"--{option.replace('_', '-')}: not for a network for segmentation or detection")
    name = given.dataset or given.data
    if name not in settings.datasets or settings.datasets[name].task == "classification":
        there = ", ".join(key for key, plan in settings.datasets.items() if plan.task != "classification")
        raise TurncoatError(f"--data {name}: a data set of segmentation or detection is wanted; there are {there}")
    suite_name = given.suite or settings.study.dense.suite
    if suite_name not in settings.suites:
        raise TurncoatError(f"--suite {suite_name}: not defined; there are {', '.join(settings.suites)}")
    ours, suite = settings.datasets[name].threat, settings.suites[suite_name]
    attacks = plan(suite_name, suite)
    threat = Threat(given.norm or ours.norm, ours.epsilon if given.epsilon is None else given.epsilon)
    compute = resolve(settings.compute)
    images = data.load((Path(given.data) if given.dataset and given.data else Path("data")) / name)
    count = given.images or suite.images
    test = resident(images.test.images[:count], images.test.labels[:count], compute.device, images.task)
    network = compute.place(models.load(given.model))
    kind = {"segmentation": "segmenter", "detection": "detector"}[images.task]
    made: Any = network.spec
    if (made["kind"], made["classes"], tuple(made["shape"])) != (kind, len(images.classes), images.shape):
        sides = ["×".join(map(str, shape)) for shape in (made["shape"], images.shape)]
        raise TurncoatError(
            f"{given.model}: a {made['kind']} of {made['classes']} classes for {sides[0]} does not fit {name}, a "
            f"data set of {images.task} with {len(images.classes)} classes and {sides[1]}"
        )
    result = evaluate_dense(
        network,
        test.floats(),
        test.labels,
        images.task,
        len(images.classes),
        threat,
        attacks,
        seed=given.seed,
        batch_size=given.batch_size or (suite.batch_size if isinstance(suite.batch_size, int) else 50),
    )
    for condition in result.counts:
        told = ", ".join(f"{what} {value:.2%}" for what, value in result.measures(condition).items())
        print(f"{condition:<20} {told}  of {result.n} images")
    for flag in result.flags:
        print(f"{'DO NOT BELIEVE' if flag.blocks else 'settled'}: {flag.name}: {flag.detail}")
    if given.json:
        found = dense_measurements(result, images.classes) | {
            "flags": flag_rows(result.flags),
            "model": sha256(given.model),
            "threat": vars(threat),
            "suite": suite_name,
        }
        write_json(given.json, found)
