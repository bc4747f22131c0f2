"""AToP's figures and table: what they say, which arms they compare, and when they are absent."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.defaults import DEFAULTS
from tests.reporting import synthetic
from turncoat.files import write_json
from turncoat.papers.arms import arm_settings, resolved
from turncoat.papers.atop import figures, tables
from turncoat.reporting.study import Study
from turncoat.settings import load

ARMS = {
    "purifier-gated": (0.90, 0.20),  # no fine-tuned arm of this study began as it
    "purifier-rt1": (0.93, 0.30),
    "purifier-rt2": (0.85, 0.40),
    "atop-lambda": (0.80, 0.60),  # an ablation, before the arm that it is of
    "atop-rt1": (0.92, 0.45),
    "atop-rt2": (0.86, 0.50),
    "standard": (0.97, 0.05),
}
UNET = {"network": "unet", "width": 16, "transform": "rt2"}
PRETRAINED = {"unet": UNET, "unet-rt1": UNET | {"transform": "rt1"}, "gated": UNET | {"network": "gated", "width": 32}}
SHOWN = 6


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    resolve = synthetic.resolve

    def with_transform(dataset: str, arm: str, section: str = "arms") -> dict[str, Any]:
        if section == "pretrained":
            return PRETRAINED[arm]
        own: dict[str, Any] = {}
        if not arm.startswith("standard"):
            own = {"transform": "rt1" if arm.endswith("rt1") else "rt2", "votes": 1, "classifier": "baseline"}
        if arm.startswith("purifier"):
            own |= {"network": "unet", "width": 16} if arm != "purifier-gated" else {"network": "gated", "width": 32}
        if arm.startswith("atop"):
            began = "gated" if arm == "atop-gated" else "unet-rt1" if arm.endswith("rt1") else "unet"
            own |= {"ce_weight": 1.0 if arm == "atop-lambda" else 0.05, "purifier": began}
        return resolve(dataset, arm) | own

    monkeypatch.setattr(synthetic, "ARMS", ARMS)
    monkeypatch.setattr(synthetic, "resolve", with_transform)
    synthetic.write(tmp_path, n=200)
    analysed(tmp_path)
    return synthetic.study(tmp_path)


def analysed(root: Path) -> None:
    """The section of AToP as the analyse stage leaves it: accuracy falls with steps and draws, from 100 % to 10 %.

    With one draw the attack came to rest a look earlier.
    """
    generator, arms = np.random.default_rng(0), [arm for arm in ARMS if arm != "standard"]
    arrays: dict[str, Any] = {"images": generator.uniform(size=(SHOWN, 1, 8, 8)), "labels": np.arange(SHOWN)}
    for arm in arms:
        attacked = arrays["images"] + 0.15 * np.sign(generator.normal(size=(SHOWN, 1, 8, 8)))
        arrays |= {f"{part}-{arm}": attacked for part in ("attacked", "transformed", "purified")}
        arrays[f"answers-{arm}"] = np.stack([np.arange(SHOWN), np.arange(SHOWN)[::-1]])
        steps = np.array([[20, 10, 6], [20, 8, 4], [20, 6, 2]], np.int16)
        steps[0, -1] = -1
        arrays[f"right-{arm}"] = np.repeat(steps[..., None], 50, 2)
    told = {"n": 50, "scored": 20, "step": 0.1}
    told |= {"arms": {arm: {"draws": [1, 5, 20], "steps": [0, 32, 64]} for arm in arms}}
    folder = root / "reports/analysis/digits"
    folder.mkdir(parents=True)
    np.savez(folder / "arrays.npz", **{f"atop-{name}": values for name, values in arrays.items()})
    found = {"dataset": "digits", "seed": 0, "attack": "pgd-20", "weights": dict.fromkeys(arms, "0" * 64)}
    write_json(folder / "analysis.json", found | {"atop": told})


@pytest.mark.parametrize(
    ("drawer", "said"),
    [
        (figures.by_transform, "for each random transform, before and after fine-tuning. Worst case: RT1 unet "),
        (
            figures.strength,
            "In the end purifier-rt2: 1 draw 50.0 ± 13.4 % after 32 steps, the last doubling took off 50.0; "
            "5 draws 20.0 ± 10.9 % after 64 steps, the last doubling took off 20.0; 20 draws 10.0 ±",
        ),
        (figures.on_the_way, "Mean change of a pixel: 0.150 by the attack, 0.150 after purification; 6 of 6"),
    ],
)
def test_a_figure_says_what_it_shows_and_comes_out_the_same(
    study: Study, drawer: Any, said: str, tmp_path: Path
) -> None:
    synthetic.check_figure(study, drawer, said, tmp_path)


def test_transforms_are_compared_by_the_arms_that_change_nothing_else(study: Study) -> None:
    table = tables.transforms_table(study, "digits", study.arms("digits"))
    assert table
    assert [row[:4] for row in table.rows] == [
        ["RT1", "unet", "no", "purifier-rt1"],
        ["RT1", "unet", "yes", "atop-rt1"],
        ["RT2", "gated", "no", "purifier-gated"],
        ["RT2", "unet", "no", "purifier-rt2"],
        ["RT2", "unet", "yes", "atop-rt2"],
    ]
    assert table.header[4:] == ["clean", "fgsm", "pgd-20", "margin-20", "worst"]
    assert table.alignment == "llll" + "r" * 5


def test_the_study_s_own_arms_pair_with_what_they_began_as() -> None:
    """Every fine-tuned arm that is defined and changes nothing else has its own kind before it."""
    settings = load(DEFAULTS)
    plans = {arm: arm_settings(settings, arm).model_dump() for arm in settings.arms}
    study = SimpleNamespace(plan=lambda dataset, arm: plans[arm], resolve=partial(resolved, settings))
    arms = [arm for arm in settings.arms if plans[arm]["method"] in tables.PHASES]
    found = tables.pairs(study, "digits", arms)  # type: ignore[arg-type]
    assert {tuple(row.values()) for row in found.values()} == {
        ("purifier-none", "atop-none"),
        ("purifier-rt1", "atop-rt1"),
        ("purifier-rt2", "atop"),
        ("purifier-rt3", "atop-rt3"),
        ("purifier-gated", "atop-gated"),
        ("purifier-authors-rt1", "atop-authors-rt1"),
        ("purifier-authors", "atop-authors"),
        ("purifier-authors-rt3", "atop-authors-rt3"),
        ("purifier-autoencoder",),  # atop-autoencoder has no adversarial term: an ablation
        ("purifier-autoencoder-rt2",),
    }


@pytest.mark.parametrize("drawer", [figures.strength, figures.on_the_way])
def test_without_an_analysis_there_is_no_figure(study: Study, drawer: Any, tmp_path: Path) -> None:
    assert synthetic.draw(study, drawer, "standard") is None
    (tmp_path / "reports/analysis/digits/analysis.json").unlink()
    assert synthetic.draw(study, drawer) is None


def test_without_a_pair_there_is_nothing_to_compare(study: Study) -> None:
    assert synthetic.draw(study, figures.by_transform, "purifier-rt1", "atop-rt2", "standard") is None
