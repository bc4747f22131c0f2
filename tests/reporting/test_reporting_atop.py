"""AToP's figures and table: what they say, which arms they compare, and when they are absent."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import synthetic

from turncoat.files import write_json
from turncoat.methods import arm_settings
from turncoat.methods.purifying import PurifierSettings
from turncoat.reporting import atop_figures, claims
from turncoat.reporting.study import Study
from turncoat.settings import load, validate

ARMS = {
    "purifier-gated": (0.90, 0.20),  # no fine-tuned arm of this study began as it
    "purifier-rt1": (0.93, 0.30),
    "purifier-rt2": (0.85, 0.40),
    "atop-lambda": (0.80, 0.60),  # an ablation, before the arm that it is of
    "atop-rt1": (0.92, 0.45),
    "atop-rt2": (0.86, 0.50),
    "standard": (0.97, 0.05),
}
SHOWN = 6


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    resolve = synthetic.resolve

    def with_transform(dataset: str, arm: str) -> dict[str, Any]:
        own: dict[str, Any] = {}
        if not arm.startswith("standard"):
            own = {"transform": "rt1" if arm.endswith("rt1") else "rt2", "votes": 1, "classifier": "baseline"}
        if arm.startswith("purifier"):
            own |= {"network": "unet", "width": 16} if arm != "purifier-gated" else {"network": "gated", "width": 32}
        if arm.startswith("atop"):
            began = "gated" if arm == "atop-gated" else "unet-rt1" if arm.endswith("rt1") else "unet"
            own |= {"ce_weight": 1.0 if arm == "atop-lambda" else 0.05, "purifier": began}
        return resolve(dataset, arm) | own

    params = synthetic.params

    def with_purifiers(**changes: Any) -> dict[str, Any]:
        unet = {"method": "purifier", "network": "unet", "width": 16}
        pretrained = {"unet": unet, "unet-rt1": unet | {"transform": "rt1"}, "gated": {"method": "purifier"}}
        return params(**changes) | {"pretrained": pretrained}

    monkeypatch.setattr(synthetic, "params", with_purifiers)
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


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


@pytest.mark.parametrize(
    ("drawer", "said"),
    [
        (atop_figures.by_transform, "for each random transform, before and after fine-tuning. Worst case: RT1 unet "),
        (
            atop_figures.strength,
            "In the end purifier-rt2: 1 draw 50.0 ± 13.4 % after 32 steps, the last doubling took off 50.0; "
            "5 draws 20.0 ± 10.9 % after 64 steps, the last doubling took off 20.0; 20 draws 10.0 ±",
        ),
        (atop_figures.on_the_way, "Mean change of a pixel: 0.150 by the attack, 0.150 after purification; 6 of 6"),
    ],
)
def test_a_figure_says_what_it_shows_and_comes_out_the_same(
    study: Study, drawer: Any, said: str, tmp_path: Path
) -> None:
    synthetic.check_figure(study, drawer, said, tmp_path)


def test_transforms_are_compared_by_the_arms_that_change_nothing_else(study: Study) -> None:
    table = atop_figures.transforms_table(study, "digits", study.arms("digits"))
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


def test_a_purifier_left_unsaid_is_the_method_s_own() -> None:
    assert validate(PurifierSettings, {"method": "purifier"}, "p").model_dump().items() >= atop_figures.DEFAULTS.items()


def test_the_study_s_own_arms_pair_with_what_they_began_as() -> None:
    """Every fine-tuned arm of params.yaml that changes nothing else has its own kind before it."""
    settings = load("params.yaml")
    plans = {arm: arm_settings(settings, arm).model_dump() for arm in settings.arms}
    study = SimpleNamespace(settings=settings, plan=lambda dataset, arm: plans[arm])
    arms = [arm for arm in settings.arms if plans[arm]["method"] in atop_figures.PHASES]
    found = atop_figures._pairs(study, "digits", arms)  # type: ignore[arg-type]
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


def test_each_paper_s_section_names_every_arm_of_its_methods() -> None:
    """An arm that claims/<paper>.yaml does not name is in no section of the report."""
    arms = load("params.yaml").arms
    beside = {"standard", "pgd", "trades"}  # what papers are compared with
    for paper in claims.load("claims"):
        own = {arms[arm]["method"] for arm in paper.arms if arm in arms} - beside
        missing = [arm for arm, plan in arms.items() if plan["method"] in own and arm not in paper.arms]
        assert not missing, f"claims/{paper.name}.yaml: arms: {', '.join(missing)}"


@pytest.mark.parametrize("drawer", [atop_figures.strength, atop_figures.on_the_way])
def test_without_an_analysis_there_is_no_figure(study: Study, drawer: Any, tmp_path: Path) -> None:
    assert synthetic.draw(study, drawer, "standard") is None
    (tmp_path / "reports/analysis/digits/analysis.json").unlink()
    assert synthetic.draw(study, drawer) is None


def test_without_a_pair_there_is_nothing_to_compare(study: Study) -> None:
    assert synthetic.draw(study, atop_figures.by_transform, "purifier-rt1", "atop-rt2", "standard") is None
