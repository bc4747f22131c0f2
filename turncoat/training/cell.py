"""From a prepared method to the files of a trained cell: what the baseline and the finetune stage share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from turncoat import models
from turncoat.data.batches import DeviceSplit
from turncoat.files import sha256, write_json
from turncoat.randomness import seed_of
from turncoat.settings import TrainingSettings
from turncoat.training.checkpoint import Checkpoint, Scratch, duration_file
from turncoat.training.compute import Compute
from turncoat.training.loop import State, Trainable, fit


def train_cell(
    method: Trainable,
    train: DeviceSplit,
    schedule: TrainingSettings,
    compute: Compute,
    *,
    cell: Mapping[str, Any],
    settings: Mapping[str, Any],
    key: str,
    folder: Path,
    validate: Callable[[nn.Module], dict[str, float]],
    log: Callable[[int, dict[str, float]], None],
) -> dict[str, Any]:
    """Train (or go on training) one cell and write its files: weights, history.json, training.json.

    Args:
        cell: dataset, arm, seed. settings: all that the result hangs on. key: its `fingerprint`.
        folder: where the files go; written when training is complete, each whole or not at all.
        log: called with (epoch, row) after each epoch.

    Returns: the content of training.json.
    """
    with Scratch(key, f"training {cell['dataset']}/{cell['arm']}/{cell['seed']}") as scratch:
        checkpoint = Checkpoint(scratch.folder)
        outcome = fit(
            method,
            train,
            schedule,
            compute,
            seed=cell["seed"],
            validate=validate,
            checkpoint=checkpoint,
            log=lambda row: log(int(row["epoch"]), row),
        )
        deployed = method.deploy(method.model)
        folder.mkdir(parents=True, exist_ok=True)
        _publish(folder / "best.safetensors", deployed, outcome.best, cell, key)
        _publish(folder / "last.safetensors", deployed, outcome.last, cell, key)
        write_json(folder / "history.json", outcome.history)
        summary = {
            "cell": dict(cell),
            "fingerprint": key,
            "epochs": schedule.epochs,
            "best_epoch": outcome.best_epoch,
            "validation": {
                "best": _validation(outcome.history[outcome.best_epoch - 1]),
                "last": _validation(outcome.history[-1]),
            },
            "cost": {
                "images": outcome.passes["images"],
                "forward": round(outcome.passes["forward"] / outcome.passes["images"], 3),
                "backward": round(outcome.passes["backward"] / outcome.passes["images"], 3),
            },
            "parameters": models.parameter_count(deployed),
            "settings": dict(settings),
            "weights": {name: sha256(folder / f"{name}.safetensors") for name in ("best", "last")},
        }
        write_json(folder / "training.json", summary)
        write_json(duration_file(key), {"seconds": round(checkpoint.seconds, 2)})
        scratch.clear()
    return summary


def _publish(path: Path, module: nn.Module, state: State, cell: Mapping[str, Any], key: str) -> None:
    module.load_state_dict(state)
    models.save(path, module, cell=dict(cell), fingerprint=key)


def _validation(row: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix("validation_"): value for name, value in row.items() if name.startswith("validation_")}


def initialised(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    """A module whose random initialisation depends on the seed alone; torch's global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "initialise"))
        return make()
