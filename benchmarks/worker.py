"""One library in a process of its own, so that each may have its own environment: jobs in, results out, JSON lines.

    {"attack": "pgd" | "autoattack", "steps": 10, "epsilon": 0.15, "seed": 0}
    -> {"seconds": ..., "robust": ..., "forward": ..., "backward": ...}  (passes an image)
    {"train": "pgd" | of ours any arm of params.yaml, "precision": "float32" | "bfloat16" | "auto",
     "compile": false | true | "auto", ...}  (a peer's step is float32 and plain, whatever these two say)
    -> {"seconds": ..., "images": ...}  for one training step on all images given, or on the arm's part of them
    {"evaluate": a suite of params.yaml, "epsilon": 0.15, "seed": 0}  (ours alone)
    -> {"seconds": ..., "least": ..., ...}  for the evaluation of the network, and for its passes alone
    {"about": true} -> {"device": "NVIDIA H200", "torch": "2.11.0"}

Every library gets the same network, images and budget, computes float32 in full (no TF32), and is judged by the same
float32 forward pass.
"""

import argparse
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import ours
from turncoat import attacks, data, models
from turncoat.attacks import Counter, Threat
from turncoat.data.batches import resident
from turncoat.settings import load
from turncoat.training import resolve

Job = dict[str, Any]
Attack = Callable[[nn.Module, Tensor, Tensor, Job], Tensor]


def turncoat(model: nn.Module, images: Tensor, labels: Tensor, job: Job) -> Tensor:
    source = torch.Generator(images.device).manual_seed(job["seed"])
    threat = Threat("linf", job["epsilon"])
    if job["attack"] == "autoattack":
        return attacks.autoattack(model, images, labels, threat, generator=source)
    return attacks.pgd(
        model, images, labels, threat, steps=job["steps"], relative_step=job["relative_step"], generator=source,
        early_stop=job["early_stop"],
    )  # fmt: skip


def torchattacks(model: nn.Module, images: Tensor, labels: Tensor, job: Job) -> Tensor:
    import torchattacks

    torch.manual_seed(job["seed"])
    if job["attack"] == "autoattack":  # its own AutoAttack is one of 10 steps; these are the 100 of the paper
        same = {"norm": "Linf", "eps": job["epsilon"], "seed": job["seed"]}
        parts = [
            torchattacks.APGD(model, steps=100, **same),
            torchattacks.APGDT(model, steps=100, n_classes=_classes(model), **same),
            torchattacks.FAB(model, steps=100, multi_targeted=True, n_classes=_classes(model), **same),
            torchattacks.Square(model, n_queries=5000, **same),
        ]
        attack = torchattacks.MultiAttack(parts)
    else:
        attack = torchattacks.PGD(
            model, eps=job["epsilon"], alpha=job["relative_step"] * job["epsilon"], steps=job["steps"]
        )
    return attack(images, labels)


def foolbox(model: nn.Module, images: Tensor, labels: Tensor, job: Job) -> Tensor:
    import foolbox

    torch.manual_seed(job["seed"])
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=job["relative_step"] * job["epsilon"], steps=job["steps"])
    return attack(wrapped, images, labels, epsilons=job["epsilon"])[1]


def art(model: nn.Module, images: Tensor, labels: Tensor, job: Job) -> Tensor:
    import numpy as np
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    np.random.seed(job["seed"])  # noqa: NPY002 - what this library draws from
    torch.manual_seed(job["seed"])
    wrapped = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(images.shape[1:]), _classes(model), clip_values=(0, 1),
        device_type="gpu" if images.is_cuda else "cpu",
    )  # fmt: skip
    attack = ProjectedGradientDescentPyTorch(
        wrapped, eps=job["epsilon"], eps_step=job["relative_step"] * job["epsilon"], max_iter=job["steps"],
        num_random_init=1, batch_size=len(images), verbose=False,
    )  # fmt: skip
    return torch.from_numpy(attack.generate(images.cpu().numpy(), labels.cpu().numpy())).to(images.device)


LIBRARIES: dict[str, Attack] = {"turncoat": turncoat, "torchattacks": torchattacks, "foolbox": foolbox, "art": art}
STEPS: dict[tuple[str, str, object], ours.Step] = {}  # prepared once, as a training is


def _classes(model: nn.Module) -> int:
    spec = getattr(model, "model", model).spec  # of a network of this study, or of a Counter around one
    return int(spec["classes"])  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not mix with the answers
    torch.set_num_threads(given.threads)
    if given.library == "turncoat":
        resolve(load().compute)  # as a stage does: the same numbers for the same seed, for attacks too
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # by default convolutions may
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = models.load(given.model, device)
    stored = data.load(given.data)
    split = resident(stored.test.images[: given.images], stored.test.labels[: given.images], device)
    images, labels = split.floats(), split.labels
    for line in sys.stdin:
        job = json.loads(line)
        if "about" in job:
            name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
            result: dict[str, Any] = {"device": name, "torch": torch.__version__}
        elif "evaluate" in job:
            result = ours.evaluation(model, images, labels, job)
        elif "train" in job:
            if given.library == "turncoat":
                key = (job["train"], job["precision"], job.get("compile", False))
                if key not in STEPS:
                    STEPS[key] = ours.Step(model, split, stored.name, len(stored.train.labels), job)
                result = STEPS[key].run(job["seed"])
            else:
                result = _train(given.library, model, images, labels, job)
        else:
            result = _attack(given.library, model, images, labels, job)
        print(json.dumps(result), file=answers, flush=True)


def _attack(library: str, model: nn.Module, images: Tensor, labels: Tensor, job: Job) -> dict[str, float]:
    # Ours attacks as the evaluation does, which folds a network once for all attacks; the network itself judges.
    counter = Counter(attacks.folded(model.eval(), images[:2]) if library == "turncoat" else model.eval())
    found: list[Tensor] = []
    seconds = ours.timed(lambda: found.append(LIBRARIES[library](counter, images, labels, job)), images.device)
    # beyond the ball counts nothing
    inside = Threat("linf", job["epsilon"]).project(found[0].detach().float(), images)
    with torch.no_grad():
        robust = int((model(inside).argmax(1) == labels).sum())
    passes = {"forward": counter.forwards / len(images), "backward": counter.backwards / len(images)}
    return {"seconds": seconds, "robust": robust, **passes}


def _train(library: str, model: nn.Module, images: Tensor, labels: Tensor, job: Job) -> dict[str, float]:
    """One step of training with a peer: its attack, then the plain PyTorch step, in float32."""
    model = copy.deepcopy(model).requires_grad_(True).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        adversarial = LIBRARIES[library](Counter(model), images, labels, job)
        nn.functional.cross_entropy(model.train()(adversarial), labels).backward()
        optimizer.step()

    return {"seconds": ours.timed(step, images.device), "images": len(images)}


if __name__ == "__main__":
    main()
