"""What one training comes to, in as many processes as torchrun starts: `python -m tests.training.ranks FOLDER`."""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch.nn import functional

from tests.methods.small import TASK, double, method, network, split_of
from turncoat.attacks import pgd
from turncoat.evaluation import evaluate
from turncoat.settings import ComputeSettings, TrainingSettings
from turncoat.training import fit, parallel, resolve

PLAN = TrainingSettings(epochs=2, batch_size=9, steps=2, lr=0.02, crop=1, flip=True)  # 9: shards of 4 and 5
ATTACK = {"steps": 3}
ARMS = {
    "standard": {},
    "pgd": {"attack": ATTACK},
    "trades": {"attack": ATTACK},
    "mart": {"attack": ATTACK},
    "mart-train-mode": {"attack": ATTACK | {"mode": "train"}},
    "pgd-awp": {"attack": ATTACK, "awp": 0.01},
    "advamd": {},
    "rat": {},
}


class Exact:
    """Adversarial training in float64 throughout; a method of the study takes its loss in float32."""

    selection = "validation_clean"

    def __init__(self):
        self.model = double(network())

    def loss(self, batch):
        images = pgd(
            self.model, batch.images, batch.labels, TASK.threat, steps=3, generator=batch.generator, mode="train"
        )
        return functional.cross_entropy(self.model(images), batch.labels), {"index": batch.index.double().mean()}

    def before_step(self):
        pass

    def deploy(self, model):
        return model


def trained(name: str) -> dict[str, torch.Tensor]:
    """Weights and statistics after two epochs, and what was logged."""
    made = Exact() if name == "exact" else method(name.split("-")[0], network(), split_of(36), **ARMS[name])
    outcome = fit(
        made,
        split_of(36),
        PLAN,
        resolve(ComputeSettings(device="cpu")),
        seed=0,
        validate=lambda model: {"validation_clean": 0.5, "validation_robust": 0.0},
    )
    state = {f"weights {key}": value for key, value in made.model.state_dict().items()}
    rows = {f"row {row['epoch']} {key}": torch.tensor(value) for row in outcome.history for key, value in row.items()}
    return state | rows | {f"passes {key}": torch.tensor(value) for key, value in outcome.passes.items()}


def attacked() -> bytes:
    """AutoAttack, batch after batch, as a record keeps it."""
    net = network(steps=3).eval()
    images = split_of(40, seed=2)
    suite = {
        "autoattack": {"attack": "autoattack", "steps": 5, "queries": 40},
        "square": {"attack": "square", "queries": 50},
    }
    found = evaluate(net, images.floats(), images.labels, TASK.threat, suite, batch_size=7)
    kept = {name: value.tolist() for name, value in found.correct.items()}
    return json.dumps(
        [kept, found.passes, found.overhead, [vars(flag) for flag in found.flags]], sort_keys=True
    ).encode()


def everything() -> dict[str, dict[str, torch.Tensor]]:
    return {name: trained(name) for name in [*ARMS, "exact"]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    parallel.launch(ComputeSettings(device="cpu", processes=int(os.environ["WORLD_SIZE"])))
    folder, name = Path(sys.argv[1]), parallel.rank()
    torch.save(everything(), folder / f"{name}.pt")
    (folder / f"{name}.json").write_bytes(attacked())
    with suppress(RuntimeError):
        torch.distributed.destroy_process_group()
