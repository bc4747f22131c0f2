"""From a prepared method to the files of a trained cell: what the baseline and the finetune stage share."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from turncoat import models
from turncoat.data.batches import DeviceSplit
from turncoat.files import read_json, sha256, write_json
from turncoat.randomness import seed_of
from turncoat.settings import TrainingSettings
from turncoat.training import parallel
from turncoat.training.checkpoint import Checkpoint, Scratch, duration_file
from turncoat.training.compute import Compute
from turncoat.training.loop import State, Trainable, Trained, fit


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
    about: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Train (or go on training) one cell and write its files: weights, history.json, training.json.

    Args:
        cell: dataset, arm, seed. settings: all that the result hangs on. key: its `fingerprint`.
        folder: where the files go; written when training is complete, each whole or not at all.
        log: called with (epoch, row) after each epoch. about: what training.json says besides.

    Returns: the content of training.json.
    """

    def trained(checkpoint: Checkpoint) -> Trained:
        parallel.barrier()  # rank 0 holds the folder, whose checkpoint all of them read
        return fit(
            method,
            train,
            schedule,
            compute,
            seed=cell["seed"],
            validate=validate,
            checkpoint=checkpoint,
            log=lambda row: log(int(row["epoch"]), row),
        )

    work = f"training {cell['dataset']}/{cell['arm']}/{cell['seed']}"
    if parallel.rank():
        trained(Checkpoint(Scratch(key, work).folder))
        summary: dict[str, Any] = parallel.of_first(None)
        return summary
    with Scratch(key, work) as scratch:
        checkpoint = Checkpoint(scratch.folder)
        outcome = trained(checkpoint)
        deployed = method.deploy(method.model)
        best = outcome.history[outcome.best_epoch - 1]
        summary = _write(
            folder, deployed, outcome, best, cell=cell, settings=settings, key=key, epochs=schedule.epochs, about=about
        )
        write_json(duration_file(key), {"seconds": round(checkpoint.seconds, 2)})
        scratch.clear()
    parallel.of_first(summary)
    return summary


def copied_cell(
    method: Trainable,
    twin: Path,
    trusted: Collection[str],
    *,
    cell: Mapping[str, Any],
    settings: Mapping[str, Any],
    key: str,
    folder: Path,
    log: Callable[[int, dict[str, float]], None],
    about: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write the files of a cell as training it would, out of those of a `twin` that was trained in the same way.

    Args:
        twin: the folder of a cell of the same settings, seed, inputs and code. trusted: factories that its weights may
            name. The rest: as of `train_cell`.

    Returns: the content of training.json.

    Raises:
        TurncoatError: the twin's weights are damaged.
    """
    before, history = read_json(twin / "training.json"), read_json(twin / "history.json")
    best_weights, last_weights = (
        models.load(twin / f"{name}.safetensors", trusted=trusted).state_dict() for name in ("best", "last")
    )
    with Scratch(key, f"training {cell['dataset']}/{cell['arm']}/{cell['seed']}") as scratch:
        for row in history:
            log(int(row["epoch"]), row)
        images = before["cost"]["images"]
        passes = {"images": images} | {name: before["cost"][name] * images for name in ("forward", "backward")}
        outcome = Trained(history, best_weights, last_weights, best_epoch=before["best_epoch"], passes=passes)
        best, epochs = history[outcome.best_epoch - 1], before["epochs"]
        deployed = method.deploy(method.model)
        summary = _write(
            folder, deployed, outcome, best, cell=cell, settings=settings, key=key, epochs=epochs, about=about
        )
        if (seconds := duration_file(before["fingerprint"])).exists():
            write_json(duration_file(key), read_json(seconds))
        scratch.clear()
    return summary


def given_cell(
    network: nn.Module,
    given: Mapping[str, Any],
    *,
    cell: Mapping[str, Any],
    settings: Mapping[str, Any],
    key: str,
    folder: Path,
    validate: Callable[[nn.Module], dict[str, float]],
) -> dict[str, Any]:
    """Write the files of a cell whose weights were given, not trained: no epochs, no cost, best and last the same.

    Args:
        network: in eval mode, on its device. given: where the weights come from, for training.json and the weights.

    Returns: the content of training.json.
    """
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    row = {"epoch": 0.0, **validate(network)}
    outcome = Trained(history=[row], best=state, last=state)
    return _write(folder, network, outcome, row, cell=cell, settings=settings, key=key, epochs=0, given=given)


def _write(
    folder: Path,
    deployed: nn.Module,
    outcome: Trained,
    best: Mapping[str, float],
    *,
    cell: Mapping[str, Any],
    settings: Mapping[str, Any],
    key: str,
    epochs: int,
    given: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Weights, history.json and training.json. `best`: the row of the history that was chosen."""
    source = {"given": dict(given)} if given else {}
    folder.mkdir(parents=True, exist_ok=True)
    _publish(folder / "best.safetensors", deployed, outcome.best, cell, key, **source)
    _publish(folder / "last.safetensors", deployed, outcome.last, cell, key, **source)
    write_json(folder / "history.json", outcome.history)
    seen = max(outcome.passes["images"], 1)
    summary = {
        "cell": dict(cell),
        "fingerprint": key,
        "epochs": epochs,
        "best_epoch": outcome.best_epoch,
        "validation": {"best": _validation(best), "last": _validation(outcome.history[-1])},
        "cost": {
            "images": outcome.passes["images"],
            "forward": round(outcome.passes["forward"] / seen, 3),
            "backward": round(outcome.passes["backward"] / seen, 3),
        },
        "parameters": models.parameter_count(deployed),
        "settings": dict(settings),
        **source,
        **about,
        "weights": {name: sha256(folder / f"{name}.safetensors") for name in ("best", "last")},
    }
    write_json(folder / "training.json", summary)
    return summary


def _publish(path: Path, module: nn.Module, state: State, cell: Mapping[str, Any], key: str, **about: Any) -> None:
    module.load_state_dict(state)
    models.save(path, module, cell=dict(cell), fingerprint=key, **about)


def _validation(row: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix("validation_"): value for name, value in row.items() if name.startswith("validation_")}


def initialised(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    """A module whose random initialisation depends on the seed alone; torch's global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "initialise"))
        return make()
