"""What a whole study costs, and its wall clock on so many GPUs: arithmetic for cells, a simulated queue for the rest.

    python -m benchmarks.scale

Prints the tables of docs/scale.md. FLOP are PyTorch's own count of a forward pass; the share of a card's speed that is
reached is an assumption, named in the output. `wall_clock` is compared with a real Slurm in tests/cluster/test_plan.py.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from stages.pipeline import Cell, cells
from turncoat import models
from turncoat.attacks import Threat
from turncoat.methods.base import Task
from turncoat.papers.arms import Section, arm_settings, method_class, schedule
from turncoat.settings import Settings, made, merged

ROOT = Path(__file__).parents[1]
NETWORK, SEEDS = "wide_resnet34_10", [0, 1, 2, 3, 4]
GPUS = (1, 8, 64, 512)
# images to train on, channels, height and width, classes
SETS = {
    "digits": (400, (1, 8, 8), 10),
    "mnist": (59_000, (1, 28, 28), 10),
    "fashion_mnist": (59_000, (1, 28, 28), 10),
    "cifar10": (49_000, (3, 32, 32), 10),
    "cifar100": (49_000, (3, 32, 32), 100),
    "imagenette": (8_969, (3, 128, 128), 10),
}
# Passes' worth of a training image beside its attack, two a step: a forward and a backward pass are three (see
# docs/performance.md, whose table this is).
BESIDE = {"trades": 7, "mart": 6, "advamd": 9, "rat": 6}
EVALUATION = 0.5 * 9_800 * 1_000  # passes of AutoAttack on 1,000 images, of which half stand


@dataclass(frozen=True)
class Card:
    """A GPU's speeds in FLOP/s, and which share of them is reached; `start`: seconds before a job's first step."""

    name: str = "H200"
    bfloat16: float = 790e12
    float32: float = 67e12
    training: float = 0.3
    evaluation: float = 0.6
    start: float = 30.0


def wall_clock(plan: Mapping[str, Cell], seconds: Mapping[str, float], workers: int, start: float = 0.0) -> float:
    """Seconds from the first job to the end of the last, on so many workers of one job each.

    A worker takes the first cell, in the order of submission, whose predecessors are done, as Slurm does.

    Args:
        seconds: of each cell that is to run; cells without are done. start: of each job, beside its cell.
    """
    order = {name: number for number, name in enumerate(name for name in plan if name in seconds)}
    left = {name: {before for before in plan[name].follows if before in order} for name in order}
    behind: dict[str, list[str]] = {name: [] for name in order}
    for name, before in left.items():
        for other in before:
            behind[other].append(name)
    ready = [(order[name], name) for name, before in left.items() if not before]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            _, name = heapq.heappop(ready)
            heapq.heappush(running, (now + start + seconds[name], name))
        now, finished = heapq.heappop(running)
        for name in behind[finished]:
            left[name].discard(finished)
            if not left[name]:
                heapq.heappush(ready, (order[name], name))
    return now


def study() -> tuple[Settings, dict[str, Cell]]:
    """All data sets, all arms that are not tuned, five seeds; the settings and the cells of it."""
    read = merged(ROOT / "tests/params.yaml")
    values = read.values
    arms = [name for name, raw in values["arms"].items() if "tune" not in raw and not name.endswith("-tuned")]
    arms.remove("advamd-pixel")  # for masks
    suite = values["study"]["suite"]
    pretrained = list(values["pretrained"])
    values["study"] = {"datasets": list(SETS), "arms": arms, "seeds": SEEDS, "pretrained": pretrained, "suite": suite}
    values["study"]["tuning"] = {"arms": [], "trials": [0, 1], "seeds": [100]}
    values["study"]["dense"] = {"datasets": [], "arms": [], "suite": "dense"}
    return made(*read, "params.yaml"), cells(values, ROOT / "dvc.yaml")


def forward_flop(shape: tuple[int, int, int], classes: int, model: str = NETWORK) -> float:
    """FLOP of one image's forward pass."""
    with torch.device("meta"):
        network = models.Classifier(model, classes, shape, [0.5] * shape[0], [0.5] * shape[0]).eval()
        images = torch.empty(1, *shape)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        network(images)
    return float(counted.get_total_flops())


def training_flop(settings: Settings, dataset: str, arm: str, flop: float, section: Section = "arms") -> float:
    """FLOP of training an arm ("baseline": from scratch), at `flop` for an image's forward pass."""
    plan = settings.datasets[dataset]
    images, _, classes = SETS[dataset]
    if arm == "baseline":
        return 3 * flop * images * plan.training.epochs
    own = arm_settings(settings, arm, section)
    task = Task(Threat(plan.threat.norm, plan.threat.epsilon), classes)
    steps = method_class(own.method)(own, task).attack_steps
    passes = 2 * steps + BESIDE.get(own.method, 3)
    plans = schedule(settings, dataset, arm, section)
    few = getattr(own, "subset", None)  # of some methods the number of images they train on, of another a name
    if isinstance(few, int) and getattr(own, "beside", "") != "train":
        images = min(images, few)
    an_epoch = plans.steps * plans.batch_size if plans.steps else images
    return passes * flop * an_epoch * plans.epochs


def costs(settings: Settings, plan: Mapping[str, Cell], card: Card) -> dict[str, float]:
    """Seconds of each cell on one GPU."""
    flop = {name: forward_flop(shape, classes) for name, (_, shape, classes) in SETS.items()}
    found = {}
    for name, cell in plan.items():
        if cell.stage in ("inputs", "download", "report"):
            continue
        dataset = cell.item["dataset"]
        if cell.stage in ("baseline", "finetune"):
            arm = cell.item.get("arm", "baseline")
            found[name] = training_flop(settings, dataset, arm, flop[dataset]) / (card.bfloat16 * card.training)
        elif cell.stage == "evaluate":
            found[name] = EVALUATION * flop[dataset] / (card.float32 * card.evaluation)
        else:  # small beside these
            found[name] = 60.0
    return found


def main() -> None:
    card = Card()
    settings, plan = study()
    seconds = costs(settings, plan, card)
    counts = {stage: sum(cell.stage == stage for cell in plan.values()) for stage in ("finetune", "evaluate")}
    print(f"{len(seconds)} jobs, {counts['finetune']} cells; {NETWORK}, {len(SEEDS)} seeds")
    print(f"{card.name}: {card.training:.0%} of bfloat16 in training, {card.evaluation:.0%} of float32 in evaluation")
    print("| data set | GFLOP an image | GPU hours, training | GPU hours, evaluation |\n|---|--:|--:|--:|")
    for name, (_, shape, classes) in SETS.items():
        mine = {cell: value for cell, value in seconds.items() if plan[cell].item["dataset"] == name}
        trained = sum(value for cell, value in mine.items() if plan[cell].stage in ("baseline", "finetune"))
        tested = sum(value for cell, value in mine.items() if plan[cell].stage == "evaluate")
        print(f"| {name} | {forward_flop(shape, classes) / 1e9:.2f} | {trained / 3600:,.0f} | {tested / 3600:,.0f} |")
    total = sum(seconds.values()) / 3600
    print(f"together {total:,.0f} GPU hours; the longest job {max(seconds.values()) / 3600:.1f} h")
    print("| GPUs | wall clock, h | of the ideal |\n|--:|--:|--:|")
    for gpus in GPUS:
        hours = wall_clock(plan, seconds, gpus, card.start) / 3600
        print(f"| {gpus} | {hours:,.1f} | {total / gpus / hours:.0%} |")


if __name__ == "__main__":
    main()
