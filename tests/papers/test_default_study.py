"""The study that the project ships with decides every headline claim of every paper on digits, with its controls."""

from torch import nn

from tests.defaults import DEFAULTS
from turncoat.evaluation import build_suite
from turncoat.evaluation.suite import Suite
from turncoat.papers import chapters
from turncoat.papers.arms import arm_settings
from turncoat.reporting.claims import Claim
from turncoat.settings import Settings, load

SETTINGS = load(DEFAULTS)
CLAIMS = [claim for chapter in chapters.load() for claim in chapter.paper.claims]
# without these a headline would stand alone: equal compute, a placebo, the same images with noise
CONTROLS = {"advamd-equal-compute", "advamd-placebo", "rat-semantic", "atop-ours-full-gradient", "mart-worst-case"}


def random(settings: Settings, arm: str) -> bool:
    """Whether what the arm deploys draws at random: a purifier behind a transform."""
    return getattr(arm_settings(settings, arm), "transform", "none") != "none"


def measured(settings: Settings, suite: Suite, arm: str) -> set[str]:
    """Names of the measures that a record of the arm will have."""
    network = nn.Identity()
    if hasattr(arm_settings(settings, arm), "transform"):
        network.purify, network.classifier = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    met = {name: plan for name, plan in suite.attacks.items() if plan.meets(network, random(settings, arm))}
    foreign = {f"worst-{plan.threat.norm}-{plan.threat.epsilon:g}" for plan in met.values() if plan.threat}
    return {"clean", "worst", *met, *foreign, *(["shifts-seen", "shifts-unseen"] if suite.shifts else [])} | (
        {"universal"} if suite.universal else set()
    )


def lacking(settings: Settings, claim: Claim) -> set[str]:
    """What the study lacks of a claim on digits: arms, or a measure of one of them."""
    suite = build_suite(settings.study.suite, settings.suites[settings.study.suite])
    what = claim.measurement("digits")
    lack = {what.arm, what.against} - set(settings.study.arms)
    for arm, metric in ((what.arm, what.metric), (what.against, what.against_metric or what.metric)):
        if metric not in measured(settings, suite, arm):
            lack.add(f"{metric} of {arm}")
    return lack


def test_no_headline_is_left_undecided_nor_without_its_controls() -> None:
    assert SETTINGS.study.datasets == ["digits"]
    assert len(SETTINGS.study.seeds) >= 3, "with one seed nothing is decided"
    wanted = [claim for claim in CLAIMS if claim.kind == "headline" or claim.id in CONTROLS]
    assert len(wanted) >= 13 + len(CONTROLS)
    assert {claim.id: lack for claim in wanted if (lack := lacking(SETTINGS, claim))} == {}


def test_every_arm_of_the_default_study_is_there_for_one_of_them() -> None:
    claims = [claim.measurement("digits") for claim in CLAIMS if claim.kind == "headline" or claim.id in CONTROLS]
    used = {arm for claim in claims for arm in (claim.arm, claim.against)}
    assert set(SETTINGS.study.arms) == used


def test_the_test_sees_what_is_missing() -> None:
    study = SETTINGS.study.model_copy(update={"arms": [arm for arm in SETTINGS.study.arms if arm != "purifier-rt2"]})
    claim = next(claim for claim in CLAIMS if claim.id == "atop-autoattack")
    assert lacking(SETTINGS.model_copy(update={"study": study}), claim) == {"purifier-rt2"}
    assert (random(SETTINGS, "atop"), random(SETTINGS, "pgd")) == (True, False)
