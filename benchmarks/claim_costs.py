"""What it would cost to judge each claim in its own setting: arithmetic, for the atlas.

    python -m benchmarks.claim_costs        # writes reports/reference/costs.json; then `make atlas`

The setting is the entry of the shelves with the claim's source and, if it names one, its network. Its cells are both
arms and the baseline, in three seeds, each evaluated by AutoAttack on 1,000 images. FLOP are counted as in
`benchmarks.scale`, a purifier's with the classifier's.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import scale
from turncoat.files import write_json
from turncoat.models.purifier import Purifier
from turncoat.papers import chapters
from turncoat.reporting.claims import Claim
from turncoat.settings import DatasetSettings, Settings

SEEDS = 3  # fewer decide nothing
# FLOP/s of one core: 100,000 images through a ResNet-20, forward and backward, took 250 s beside other work
# (AMD EPYC with AVX-512, 2026-11-27)
CORE = 100e9


def setting(settings: Settings, claim: Claim) -> tuple[str, str] | None:
    """The entry whose schedule the claim would run on, and the network; None where no entry has its data."""
    entries: dict[str, DatasetSettings] = {
        name: plan for name, plan in settings.datasets.items() if plan.data.source in claim.datasets
    }
    for name, plan in entries.items():
        if not claim.networks or plan.model in claim.networks:
            return name, plan.model
    for name in entries:
        return name, claim.networks[0]
    return None


def purifier_flop(
    settings: Settings, arm: str, shape: tuple[int, int, int], section: Mapping[str, Any] | None = None
) -> float:
    """FLOP of one image through the purifier of an arm, which RT3 calls for each of four masks; 0 where it has none."""
    raw = (section or settings.arms)[arm]
    calls = 4 if raw.get("transform") == "rt3" else 1
    raw = settings.pretrained[raw["purifier"]] if "purifier" in raw else raw
    if raw["method"] != "purifier":
        return 0.0
    with torch.device("meta"):
        purifier = Purifier(raw.get("network", "gated"), shape, raw.get("width", 32))
        images, masks = torch.empty(1, *shape), torch.empty(1, 1, *shape[1:])
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        purifier.outputs(images, masks)
    return calls * float(counted.get_total_flops())


def foundations(settings: Settings, arms: Sequence[str]) -> set[str]:
    """What the arms build on under `pretrained`, but for what equals one of them and is not trained twice."""
    built = {
        name for arm in arms for name in (settings.arms[arm].get("purifier"), settings.arms[arm].get("classifier"))
    }
    plain = [{key: value for key, value in settings.arms[arm].items() if key != "says"} for arm in arms]
    return {name for name in built & settings.pretrained.keys() if settings.pretrained[name] not in plain}


def cost(settings: Settings, claim: Claim, card: scale.Card) -> dict[str, Any] | None:
    """Data set, network, cells and hours; None where no entry of the shelves has the claim's data."""
    if (where := setting(settings, claim)) is None:
        return None
    dataset, network = where
    source = settings.datasets[dataset].data.source
    _, shape, classes = scale.SETS[source]
    arms = list(dict.fromkeys([claim.measured.arm, claim.measured.against]))
    plain = scale.forward_flop(shape, classes, network)
    training = scale.training_flop(settings, dataset, "baseline", plain)
    for name in foundations(settings, arms):
        flop = plain + purifier_flop(settings, name, shape, settings.pretrained)
        training += scale.training_flop(settings, dataset, name, flop, "pretrained")
    evaluation = 0.0
    for arm in arms:
        flop = plain + purifier_flop(settings, arm, shape)
        training += scale.training_flop(settings, dataset, arm, flop)
        evaluation += scale.EVALUATION * flop
    gpu = training / (card.bfloat16 * card.training) + evaluation / (card.float32 * card.evaluation)
    core = (training + evaluation) / CORE
    hours = {"gpu_hours": SEEDS * gpu / 3600, "core_hours": SEEDS * core / 3600}
    rounded = {name: float(f"{value:.2g}") for name, value in hours.items()}
    return {"dataset": dataset, "network": network, "arms": arms, "seeds": SEEDS} | rounded


def costs() -> dict[str, dict[str, Any]]:
    """Of every claim that names its data, by the settings that the study has where params.yaml is as it came."""
    settings, _ = scale.study()
    claims = [claim for chapter in chapters.load() for claim in chapter.paper.claims]
    found = {claim.id: cost(settings, claim, scale.Card()) for claim in claims if claim.datasets}
    return {name: value for name, value in found.items() if value}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    path = Path("reports/reference/costs.json")
    found = costs()
    write_json(path, found)
    hours = sum(value["gpu_hours"] for value in found.values())
    print(f"{path}: {len(found)} claims, {hours:,.0f} GPU hours if no cell is shared")


if __name__ == "__main__":
    main()
