"""Claims files and the rules that decide them."""

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.defaults import DEFAULTS
from tests.reporting import synthetic
from turncoat.attacks import autoattack, pgd
from turncoat.errors import TurncoatError
from turncoat.evaluation.flags import overstated
from turncoat.evaluation.suite import Planned
from turncoat.files import sha256
from turncoat.papers import chapters
from turncoat.reading import read_yaml
from turncoat.reporting import claims, report
from turncoat.reporting.claims import Claim, Measurement, Needed, Paper
from turncoat.reporting.statistics import Interval, paired
from turncoat.reporting.study import load
from turncoat.reporting.verdicts import WORDS, Verdict, adjusted, judge, judge_all, own_setting, rule
from turncoat.settings import ThreatSettings
from turncoat.settings import load as load_settings

PAPERS = Path(__file__).parents[2] / "turncoat/papers"


@pytest.fixture(scope="module")
def papers() -> list[Paper]:
    return [chapter.paper for chapter in chapters.load()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    synthetic.write(tmp_path)
    return tmp_path


def of(papers: list[Paper], name: str) -> tuple[Paper, Claim]:
    return next((paper, claim) for paper in papers for claim in paper.claims if claim.id == name)


# ------------------------------------------------------------------------------------------------------ the files


def test_every_paper_has_its_claims(papers: list[Paper]) -> None:
    least = {"mart": 6, "atop": 6, "advamd": 6, "rat": 5, "reverse": 5}
    assert {paper.name: len(paper.claims) >= least[paper.name] for paper in papers} == dict.fromkeys(least, True)
    for paper in papers:
        assert {"headline", "component"} <= {claim.kind for claim in paper.claims}, paper.name


READ = {  # every figure of a paper, its code or a public re-run that was read; nothing else may be quoted as reported
    "mart": {83.07, 65.65, 55.57, 54.87, 50.25, 87.50, 65.04, 56.29, 47.51, 48.67}
    | {82.75, 82.70, 55.45, 54.68, 53.60},
    "atop": {59.57, 72.85, 38.89, 43.55, 0.0, 43.16, 69.14, 81.05, 68.55, 72.07}
    | {93.36, 84.18, 90.04, 75.98, 80.02, 56.25, 64.06, 44.73, 59.18, 21.09, 87.89, 39.45, 87.70, 88.87, 67.97, 84.38}
    | {75.20, 76.56, 70.31, 73.44, 16.60, 39.84, 55.08, 72.66, 67.19},
    "advamd": {76.67, 77.42},
    "rat": set(),
    "reverse": {19.02, 30.78},
}


def test_every_figure_that_is_quoted_was_read(papers: list[Paper]) -> None:
    """Values stand in the list; an effect is one of its figures or the difference of the two that it names."""
    for paper in papers:
        read = READ[paper.name]
        assert {value.value for value in paper.reported} <= read
        for claim in paper.claims:
            if claim.reported != "unavailable":
                named = [float(number) for number in re.findall(r"\b\d+(?:\.\d+)?", claim.reported.of)]
                assert set(named) <= read, claim.id
                effect = named[0] - named[-1] if named else claim.reported.points
                assert claim.reported.points == pytest.approx(effect), claim.id
                assert named or claim.reported.points in read, claim.id


def test_nothing_is_reported_that_could_not_be_read(papers: list[Paper]) -> None:
    """Of AdvAmd and RAT no figure could be read; AdvAmd's one number is its neighbour's."""
    reported = {claim.id for paper in papers for claim in paper.claims if claim.reported != "unavailable"}
    assert not {name for name in reported if name.startswith(("advamd", "rat"))}
    assert {paper.name for paper in papers if paper.reported} == {"mart", "atop"}


def test_a_reported_effect_is_the_difference_of_the_reported_values(papers: list[Paper]) -> None:
    checked = 0
    for paper in papers:
        values = {(value.arm, value.metric): value.value for value in paper.reported}
        for claim in paper.claims:
            first, second = claim.measured.metric, claim.measured.against_metric or claim.measured.metric
            pair = [(claim.measured.arm, first), (claim.measured.against, second)]
            on_cifar10 = "cifar10" in claim.datasets and claim.reported != "unavailable"
            if on_cifar10 and all(key in values for key in pair):
                assert claim.reported.points == pytest.approx(values[pair[0]] - values[pair[1]])  # type: ignore[union-attr]
                checked += 1
    assert checked >= 7


def test_a_margin_is_half_of_the_reported_effect(papers: list[Paper]) -> None:
    """Where docs/claims.md says so: the effect is known, and the claim is of a difference."""
    known = [
        claim
        for paper in papers
        for claim in paper.claims
        if claim.reported != "unavailable" and claim.measured.direction != "level"
    ]
    assert len(known) >= 10
    for claim in known:
        points = claim.reported.points  # type: ignore[union-attr]
        assert 0 <= abs(points) / 2 - claim.measured.margin < 0.01, claim.id
        assert (points > 0) is (claim.measured.direction == "higher"), claim.id


def test_every_arm_that_a_claim_compares_is_defined(papers: list[Paper]) -> None:
    """An arm renamed in params.yaml would turn its claims into "not run" without a word."""
    defined = load_settings(DEFAULTS).arms
    compared = {arm for p in papers for claim in p.claims for pair in claim.pairs for arm in pair}
    swept = {arm for paper in papers for sweep in paper.sweeps for line in sweep.lines.values() for arm in line}
    assert compared | swept <= set(defined)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("margin: 2.66", "margn: 2.66", "unknown claims.0.measured.margn; did you mean margin"),
        ("against: trades", "against: tradez", "tradez is not among arms"),
        ("against: trades", "against: mart", "with itself"),
        ("direction: higher, margin: 0.0", "direction: level, margin: 0.0", "level needs a margin above 0"),
        ("id: mart-over-pgd-fgsm", "id: mart-over-pgd", "stands twice"),
        ("metric: fgsm, value: 65.65", "metric: clean, value: 65.65", "mart under clean stands twice"),
        ("name: mart", "name: smart", "must be the folder's own"),
        ("mart: [mart-no-kl", "pgd: [mart-no-kl", "the line pgd does not hold the arm of its name"),
        ("points: 5.32", "points: soon", "claims.0.reported"),
        ("margin: 2.66}", "margin: 2.66}\n    on: {mnist: {arm: mart, against: tradez}}", "tradez is not among arms"),
    ],
)
def test_a_faulty_claims_file_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = Path(shutil.copy(PAPERS / "mart/claims.yaml", tmp_path))
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(TurncoatError, match=message) as error:
        claims.load(path, "mart")
    assert "claims.yaml" in str(error.value)


# ------------------------------------------------------------------------------------------------------- the rules


def measured(direction: str, margin: float) -> Measurement:
    return Measurement(metric="clean", arm="a", against="b", direction=direction, margin=margin)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("direction", "margin", "low", "high", "word"),
    [
        ("higher", 2, 2.5, 4, "reproduced"),
        ("higher", 2, 2, 4, "reproduced"),
        ("higher", 2, 0.5, 4, "direction holds"),
        ("higher", 2, 0.5, 1.5, "direction holds"),
        ("higher", 2, -1, 3, "inconclusive"),
        ("higher", 2, -1, 1, "smaller than claimed"),
        ("higher", 4, -5.8, 3.9, "smaller than claimed"),
        ("lower", 2, -1, 1, "smaller than claimed"),
        ("higher", 2, -3, -1, "not reproduced"),
        ("higher", 0, 0.1, 1, "reproduced"),
        ("higher", 0, -0.1, 1, "inconclusive"),
        ("higher", 0, -1, -0.1, "not reproduced"),
        ("lower", 2, -4, -2.5, "reproduced"),
        ("lower", 2, -4, -0.5, "direction holds"),
        ("lower", 2, 1, 3, "not reproduced"),
        ("level", 1, -0.9, 0.8, "reproduced"),
        ("level", 1, -0.9, 1.2, "inconclusive"),
        ("level", 1, 1.2, 3, "not reproduced"),
        ("level", 1, -3, -1.2, "not reproduced"),
    ],
)
def test_rules(direction: str, margin: float, low: float, high: float, word: str) -> None:
    claim = measured(direction, margin)
    assert rule(claim, Interval(low, high), seeds=3, own=True)[0] == word
    weaker = "direction holds" if word == "reproduced" else word
    assert rule(claim, Interval(low, high), seeds=1, own=True)[0] == "one seed only"
    assert rule(claim, Interval(low, high), seeds=3, own=False)[0] == weaker


def test_digits_never_stand_for_cifar10(root: Path, papers: list[Paper]) -> None:
    study = synthetic.study(root)
    on = {verdict.dataset: verdict for verdict in judge_all(study, papers) if verdict.claim == "mart-over-trades-pgd"}
    assert on["digits"].word == "direction holds"
    assert "not the setting of the claim" in on["digits"].why
    assert (on["cifar10"].word, on["cifar10"].why) == ("not run", "the study does not include cifar10")


def test_a_verdict_on_a_paper_known_by_its_abstract_is_under_our_reading(root: Path, papers: list[Paper]) -> None:
    said = {verdict.paper: verdict.our_reading for verdict in judge_all(synthetic.study(root), papers)}
    assert said == {"mart": False, "atop": False, "advamd": True, "rat": True, "reverse": True}


def test_the_claims_own_setting_can_be_reproduced(root: Path, papers: list[Paper]) -> None:
    synthetic.write(root, datasets=("cifar10",), n=1000)
    study = synthetic.study(root, datasets=("cifar10",))
    verdict = judge(study, *of(papers, "mart-over-trades-pgd"), "cifar10")
    assert (verdict.word, verdict.own_setting, verdict.n, verdict.seeds) == ("reproduced", True, 1000, (0, 1, 2))
    assert verdict.p_value is not None
    assert verdict.p_value < 0.01  # over three seeds
    assert judge(study, *of(papers, "mart-unlabelled"), "cifar10").own_setting is False  # another network


def test_the_own_setting_is_source_and_threat_and_not_a_name(root: Path, papers: list[Paper]) -> None:
    study, claim = synthetic.study(root, datasets=("cifar10", "mnist", "digits")), of(papers, "rat-universal")[1]
    sets = study.settings.datasets
    sets["mine"] = sets["cifar10"].model_copy(update={"model": "resnet20"})
    sets["mnist"] = sets["mnist"].model_copy(update={"threat": ThreatSettings(epsilon=0.3)})
    far = sets["cifar10"].threat.model_copy(update={"epsilon": 16 / 255})
    sets["far"] = sets["cifar10"].model_copy(update={"threat": far})
    own = {name: own_setting(study, claim, name) for name in ("mine", "cifar10", "mnist", "far", "digits")}
    assert own == {"mine": True, "cifar10": True, "mnist": True, "far": False, "digits": False}
    assert own_setting(study, of(papers, "mart-over-trades-pgd")[1], "mine") is False  # another network


def test_a_claims_data_set_is_not_missed_where_the_study_has_it_by_another_name(
    root: Path, papers: list[Paper]
) -> None:
    study = synthetic.study(root, datasets=("cifar10-given",))
    on = [verdict.dataset for verdict in judge_all(study, papers) if verdict.claim == "rat-universal"]
    assert on == ["cifar10-given", "mnist"]


def test_the_effect_is_the_mean_over_seeds_of_the_records_differences(root: Path, papers: list[Paper]) -> None:
    study = synthetic.study(root)
    verdict = judge(study, *of(papers, "mart-kl"), "digits")
    rates = {
        arm: [
            record.best.attacks["pgd-20"].correct / record.best.attacks["pgd-20"].n
            for _, record in study.of("digits", arm)
        ]
        for arm in ("mart", "mart-no-kl")
    }
    differences = [100 * (a - b) for a, b in zip(rates["mart"], rates["mart-no-kl"], strict=True)]
    assert verdict.effect == pytest.approx(sum(differences) / 3)
    assert verdict.interval is not None
    assert verdict.interval.low <= min(differences) or verdict.interval.high >= max(differences)
    assert {str(cell) for cell in verdict.cells} == {f"digits/{arm}/{seed}" for arm in rates for seed in (0, 1, 2)}


@pytest.mark.parametrize(
    ("flag", "claim", "word"),
    [
        ({"name": "random-forward", "attack": None, "blocks": True}, "mart-over-trades-pgd", "unreliable"),
        ({"name": "overstated", "attack": "pgd-20", "blocks": True}, "mart-over-trades-pgd", "direction holds"),
        ({"name": "random-forward", "attack": None, "blocks": True}, "mart-worst-case", "unreliable"),
        ({"name": "overstated", "attack": "pgd-20", "blocks": True}, "mart-worst-case", "direction holds"),
        ({"name": "overstated", "attack": "pgd-20", "blocks": True}, "mart-over-pgd-fgsm", "direction holds"),
        ({"name": "steps-matter", "attack": "pgd-20", "blocks": False}, "mart-over-trades-pgd", "direction holds"),
    ],
)
@pytest.mark.fault(9, "a blocking flag in a record", "each verdict that rests on it is unreliable")
def test_a_blocking_flag_makes_what_rests_on_it_unreliable(
    root: Path, papers: list[Paper], flag: dict[str, Any], claim: str, word: str
) -> None:
    synthetic.edit(root, "digits/mart/1", lambda record: record["flags"].append(flag | {"detail": "as told"}))
    verdict = judge(synthetic.study(root), *of(papers, claim), "digits")
    assert verdict.word == word
    if word == "unreliable":
        assert flag["name"] in verdict.why
        assert verdict.effect is not None  # the number is shown, the verdict withheld
    noted = flag["blocks"] and flag["attack"] == claim_metric(papers, claim)
    assert bool(verdict.note) is noted
    assert verdict.note.startswith("pgd-20 overstates (digits/mart/1: overstated: as told)") is noted


def claim_metric(papers: list[Paper], claim: str) -> str:
    return of(papers, claim)[1].measured.metric


STRONGER = {"pgd-20": Planned(pgd), "autoattack": Planned(autoattack)}


def reran(root: Path, cell: str, pgd_20: int, auto: int, n: int = 1000) -> None:
    """Give a cell what others measured, image by image, and the flags that the evaluation raises on it."""
    right = {"pgd-20": np.arange(n) < pgd_20, "autoattack": np.arange(n) < auto}
    found = SimpleNamespace(in_worst=list(right), correct=right, worst=right["autoattack"])
    flags = [asdict(flag) for flag in overstated(found, STRONGER, looked=False)]  # type: ignore[arg-type]
    examples = root / f"reports/records/{cell}/examples.npz"
    np.savez(examples, index=np.arange(n), **right)  # type: ignore[arg-type]

    def change(record: dict[str, Any]) -> None:
        record["best"]["attacks"] = {name: {"correct": int(rows.sum()), "n": n} for name, rows in right.items()}
        record["examples"]["sha256"] = sha256(examples)
        record["flags"] = flags

    synthetic.edit(root, cell, change)


def test_what_others_found_of_mart_gets_its_words(root: Path, papers: list[Paper]) -> None:
    """MART 55.6 under PGD-20 and 47.6 under AutoAttack: ahead under the one, behind under the other."""
    for seed in (0, 1, 2):
        reran(root, f"digits/mart/{seed}", 556 + seed, 476 + seed)
        reran(root, f"digits/trades/{seed}", 503 + seed, 487)
        reran(root, f"digits/pgd/{seed}", 519 + seed, 487 + seed)
    study = synthetic.study(root)
    flagged = {cell.arm for cell, record in study.records.items() if record.flags}
    assert flagged == {"mart"}
    for claim in ("mart-over-trades-pgd", "mart-over-pgd"):
        verdict = judge(study, *of(papers, claim), "digits")
        assert verdict.word == "direction holds"  # off its own setting no more can be said
        assert "digits/mart/0: autoattack-gap: leaves 8.0 points more standing than AutoAttack" in verdict.note
        assert verdict.note.endswith("read it as accuracy under pgd-20, not as robustness")
    behind = judge(study, *of(papers, "mart-autoattack"), "digits")
    assert (behind.word, behind.note) == ("direction holds", "")
    assert behind.effect == pytest.approx(-1.1)
    paper, claim_ = of(papers, "mart-over-trades-pgd")
    here = claim_.model_copy(update={"datasets": ["digits"], "networks": []})
    assert judge(study, paper, here, "digits").word == "reproduced"


def test_a_note_stands_wherever_the_word_does(root: Path, papers: list[Paper]) -> None:
    flag = {"name": "autoattack-gap", "attack": "pgd-20", "detail": "leaves 8.0 points more", "blocks": True}
    synthetic.edit(root, "digits/mart/1", lambda record: record["flags"].append(flag))
    _, verdicts = report.build(synthetic.settings(), synthetic.resolve, chapters.load(), root)
    noted = {verdict.claim for verdict in verdicts if verdict.note}
    assert {"mart-over-trades-pgd", "mart-over-pgd", "mart-kl"} <= noted
    assert "mart-worst-case" not in noted
    table = (root / "reports/tables/verdicts-digits.md").read_text()
    marked = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|") and "‡" in line}
    assert marked == {of(papers, name)[1].says for name in noted}
    page = (root / "reports/report.html").read_text()
    note = (
        "‡ pgd-20 overstates (digits/mart/1: autoattack-gap: leaves 8.0 points more): read it as accuracy under pgd-20"
    )
    assert page.count(note) == len(noted)
    assert page.count('<abbr title="pgd-20 overstates') == 2 + len(noted)  # the two headlines, and each claim
    told = json.loads((root / "reports/verdicts.json").read_text())
    assert {verdict["claim"] for verdict in told if verdict["note"]} == noted


@pytest.mark.parametrize(
    ("shares", "word", "why"),
    [
        ((0.025, 0.05, 0.125), "unreliable", "misclassifies: 2.5 to 12.5 % in pgd, where the claim needs 50 %"),
        ((0.6, 0.49, 0.6), "unreliable", "49 to 60 % in pgd"),
        ((0.5, 0.5, 1.0), "not reproduced", "opposite direction"),
        (None, "unreliable", "left no chosen_misclassified"),
    ],
)
def test_a_subset_that_is_not_misclassified_decides_nothing(
    root: Path, papers: list[Paper], shares: tuple[float, ...] | None, word: str, why: str
) -> None:
    paper, claim = of(papers, "mart-misclassified-matter")
    assert claim.needs == of(papers, "mart-misclassified-regularised")[1].needs
    pair = claim.measured.model_copy(update={"arm": "pgd", "against": "standard"})
    for seed, share in enumerate(shares or ()):
        path = root / f"models/digits/pgd/{seed}/history.json"
        path.write_text(json.dumps([{"epoch": 1, "chosen_misclassified": share}]))
    verdict = judge(synthetic.study(root), paper, claim.model_copy(update={"measured": pair}), "digits")
    assert verdict.word == word
    assert why in verdict.why
    assert verdict.effect is not None


@pytest.mark.parametrize(("least", "word"), [(0.05, "decided"), (1.0, "unreliable")])
def test_an_arm_that_reads_too_few_clean_images_decides_nothing(
    root: Path, papers: list[Paper], least: float, word: str
) -> None:
    paper, claim = of(papers, "atop-rt1-robust")
    assert claim.needs
    assert claim.needs.metric == "clean"
    pair = claim.measured.model_copy(update={"arm": "pgd", "against": "standard", "metric": "pgd-20"})
    needs = claim.needs.model_copy(update={"least": least})
    changed = claim.model_copy(update={"measured": pair, "on": {}, "needs": needs})
    verdict = judge(synthetic.study(root), paper, changed, "digits")
    assert (verdict.word == "unreliable") == (word == "unreliable")
    assert ("that it leaves readable: " in verdict.why) == (word == "unreliable")


def test_a_need_names_a_column_or_a_metric_and_not_both() -> None:
    for named in ({}, {"column": "a", "metric": "clean"}):
        with pytest.raises(ValueError, match=r"name column, of history\.json, or metric"):
            Needed(what="share", least=0.5, **named)


def test_a_flag_of_the_whole_network_leaves_clean_accuracy_alone(root: Path, papers: list[Paper]) -> None:
    flag = {"name": "dead-gradients", "attack": None, "detail": "as told", "blocks": True}
    synthetic.edit(root, "digits/mart/1", lambda record: record["flags"].append(flag))
    paper, claim = of(papers, "mart-kl")
    on_clean = claim.model_copy(update={"measured": claim.measured.model_copy(update={"metric": "clean"})})
    assert judge(synthetic.study(root), paper, on_clean, "digits").word != "unreliable"


def test_seen_and_unseen_shifts_are_those_of_the_first_arm(root: Path, papers: list[Paper]) -> None:
    rates = {"mart": {"blur": 90, "noise": 70}, "pgd": {"blur": 60, "noise": 65}}
    for arm, rate in rates.items():
        rows = [{"shift": name, "severity": s, "correct": c, "n": 100} for name, c in rate.items() for s in (1, 5)]
        for seed in (0, 1, 2):
            synthetic.edit(root, f"digits/{arm}/{seed}", lambda r, rows=rows: r["best"].update(shifts=rows))

    def resolve(dataset: str, arm: str) -> dict[str, Any]:
        return synthetic.resolve(dataset, arm) | ({"seen": ["blur"]} if arm == "mart" else {})

    for seed in (0, 1, 2):
        synthetic.edit(root, f"digits/mart/{seed}", lambda r: r["settings"]["arm"].update(seen=["blur"]))
    study = load(synthetic.settings(), resolve, root)
    paper, claim = of(papers, "mart-over-pgd")
    effects = {}
    for metric in ("shifts", "shifts-seen", "shifts-unseen"):
        changed = claim.model_copy(update={"measured": claim.measured.model_copy(update={"metric": metric})})
        effects[metric] = judge(study, paper, changed, "digits").effect
    assert effects == pytest.approx({"shifts": 17.5, "shifts-seen": 30, "shifts-unseen": 5})


@pytest.mark.parametrize("metric", ["shifts-unseen", "universal"])
def test_pooled_trials_are_paired_image_by_image(root: Path, papers: list[Paper], metric: str) -> None:
    paper, claim = of(papers, "mart-over-pgd")
    changed = claim.model_copy(update={"measured": claim.measured.model_copy(update={"metric": metric})})
    study = synthetic.study(root)
    verdict = judge(study, paper, changed, "digits")
    left, right = (
        [cell for cell, _ in study.of("digits", arm)] for arm in (claim.measured.arm, claim.measured.against)
    )
    pairs = [study.outcomes(cells, metric) for cells in (left, right)]
    assert None not in pairs
    assert verdict.p_value == pytest.approx(paired(pairs[0][0], pairs[1][0]).p_value, rel=1e-6)
    assert verdict.effect == pytest.approx(100 * (pairs[0][0].mean() - pairs[1][0].mean()))


def test_a_claim_compares_other_arms_where_it_says_so(root: Path, papers: list[Paper]) -> None:
    paper, claim = of(papers, "mart-kl")
    elsewhere = claim.model_copy(update={"on": {"digits": claims.Pair(arm="mart", against="pgd")}})
    study = synthetic.study(root)
    assert (
        judge(study, paper, elsewhere, "digits").effect == judge(study, *of(papers, "mart-over-pgd"), "digits").effect
    )
    assert judge(study, paper, claim, "digits").effect != judge(study, paper, elsewhere, "digits").effect
    assert elsewhere.measurement("cifar10") == claim.measured
    assert elsewhere.pairs == [("mart", "mart-no-kl"), ("mart", "pgd")]


def test_a_missing_seed_is_not_run_and_says_which(root: Path, papers: list[Paper]) -> None:
    (root / "reports/records/digits/mart/1/record.json").unlink()
    verdict = judge(synthetic.study(root), *of(papers, "mart-kl"), "digits")
    assert (verdict.word, verdict.why) == ("not run", "missing: digits/mart/1 (no record)")


def test_an_attack_that_the_suite_lacks_is_not_run(root: Path, papers: list[Paper]) -> None:
    verdict = judge(synthetic.study(root), *of(papers, "mart-autoattack"), "digits")
    assert (verdict.word, verdict.why) == ("not run", "the suite has no measure named autoattack")


def test_changing_one_record_changes_the_verdicts_that_depend_on_it_and_only_those(
    root: Path, papers: list[Paper]
) -> None:
    def all_verdicts() -> dict[tuple[str, str], Verdict]:
        """Without Holm's p-values, which hang on all claims by design."""
        return {(v.claim, v.dataset): replace(v, p_holm=None) for v in judge_all(synthetic.study(root), papers)}

    before = all_verdicts()
    for seed in (0, 1, 2):
        synthetic.edit(root, f"digits/mart-no-kl/{seed}", lambda r: r["best"]["attacks"]["pgd-20"].update(correct=390))
    after = all_verdicts()
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {("mart-kl", "digits")}
    assert (before["mart-kl", "digits"].word, after["mart-kl", "digits"].word) == ("direction holds", "not reproduced")


@pytest.mark.parametrize(
    ("cell", "metric"),
    [
        ("digits/trades/1", "pgd-20"),
        ("digits/mart/2", "fgsm"),
        ("digits/pgd/0", "worst"),
        ("digits/standard/0", "clean"),
    ],
)
def test_one_record_changed_by_hand_changes_the_claims_on_its_arm_and_metric_and_no_other(
    root: Path, papers: list[Paper], cell: str, metric: str
) -> None:
    """Which claims those are is read from the claims files, not from the code that judges."""
    before = {v.claim: v for v in judge_all(synthetic.study(root), papers) if v.dataset == "digits"}

    def change(record: dict[str, Any]) -> None:
        count = record["best"].get(metric) or record["best"]["attacks"][metric]
        count["correct"] -= 40

    synthetic.edit(root, cell, change)
    after = {v.claim: v for v in judge_all(synthetic.study(root), papers) if v.dataset == "digits"}
    arms = set(synthetic.ARMS)
    stated = [claim for paper in papers for claim in read_yaml(PAPERS / paper.name / "claims.yaml")["claims"]]
    compared = {c["id"]: (c["measured"]["metric"], {c["measured"]["arm"], c["measured"]["against"]}) for c in stated}
    wanted = {
        name
        for name, (decides, pair) in compared.items()
        if decides == metric and cell.split("/")[1] in pair and pair <= arms
    }
    alike = {name for name in before if replace(before[name], p_holm=None) == replace(after[name], p_holm=None)}
    assert set(before) - alike == wanted
    assert bool(wanted) is (metric != "clean")  # no claim of this study is about clean accuracy
    effects = {name: after[name].effect - before[name].effect for name in wanted}  # type: ignore[operator]
    sign = {claim["id"]: -1 if claim["measured"]["arm"] == cell.split("/")[1] else 1 for claim in stated}
    assert effects == pytest.approx({name: sign[name] * 100 * 40 / 400 / 3 for name in wanted})


def test_one_seed_without_outcomes_per_image_still_has_an_interval(root: Path, papers: list[Paper]) -> None:
    for arm in ("mart", "trades"):
        (root / f"reports/records/digits/{arm}/0/examples.npz").unlink()
    verdict = judge(synthetic.study(root, seeds=(0,)), *of(papers, "mart-over-trades-pgd"), "digits")
    assert verdict.word == "one seed only"
    assert verdict.interval is not None
    assert verdict.interval.low < verdict.effect < verdict.interval.high  # type: ignore[operator]


# --------------------------------------------------------------------------------------------- seeds, p and power


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.2]), st.sampled_from([0.0, 0.1]))
@settings(max_examples=60, deadline=None)
def test_fewer_seeds_never_give_a_firmer_word_by_losing_a_source_of_variance(
    draw: int, of_seed: float, effect: float
) -> None:
    """One seed decides nothing; of two or more, both seeds and images are in the interval, whichever are dropped."""
    generator = np.random.default_rng(draw)
    hard = generator.random(80)
    left, right = (
        hard + generator.normal(0, of_seed + 1e-3, (4, 1)) + generator.normal(0, 0.1, (4, 80)) < rate
        for rate in (0.6 + effect, 0.6)
    )
    claim = measured("higher", 0.5)
    for kept in range(1, 5):
        found = paired(left[:kept], right[:kept])
        word = rule(claim, found.times(100).interval, kept, own=True)[0]
        assert (word == "one seed only") is (kept == 1)
        if kept > 1:
            assert found.of_images > 0
            differences = (left[:kept].astype(float) - right[:kept]).mean(axis=1)
            assert found.of_seeds == pytest.approx(differences.var(ddof=1) / kept)


def test_one_seed_decides_nothing_in_a_study(root: Path, papers: list[Paper]) -> None:
    found = [v for v in judge_all(synthetic.study(root, seeds=(0,)), papers) if v.dataset == "digits"]
    assert {verdict.word for verdict in found} == {"one seed only", "not run"}
    told = next(verdict for verdict in found if verdict.word == "one seed only")
    assert "says nothing of the next seed" in told.why
    assert (told.p_holm, told.seeds_needed) == (None, None)


def test_what_is_inconclusive_tells_why_and_how_many_seeds_decide(root: Path, papers: list[Paper]) -> None:
    for seed, right in enumerate((300, 285, 255)):
        synthetic.edit(root, f"digits/mart/{seed}", lambda r, c=right: r["best"]["attacks"]["pgd-20"].update(correct=c))
        for arm in ("mart", "trades"):
            (root / f"reports/records/digits/{arm}/{seed}/examples.npz").unlink()
    verdict = judge(synthetic.study(root), *of(papers, "mart-over-trades-pgd"), "digits")
    assert verdict.word == "inconclusive"
    assert re.search(r"% of its variance is that of 3 seeds", verdict.why)
    if verdict.seeds_needed is None:
        assert "not even 1,000 would decide it on 400 images" in verdict.why
    else:
        assert verdict.seeds_needed > 3
        assert f"{verdict.seeds_needed} would decide it with power 0.8" in verdict.why


def test_holm_is_over_what_was_decided_and_marks_what_does_not_survive_it() -> None:
    def verdict(word: str, p: float) -> Verdict:
        return Verdict("mart", "x", "digits", word, "", False, False, effect=1.0, p_value=p)  # type: ignore[arg-type]

    given_ = [
        verdict("direction holds", 0.001),
        verdict("direction holds", 0.03),
        verdict("inconclusive", 0.2),
        verdict("unreliable", 1e-9),
        verdict("one seed only", 1e-9),
    ]
    found = adjusted(given_)
    assert [v.p_holm for v in found] == pytest.approx([0.003, 0.06, 0.2, None, None])
    assert [v.alone for v in found] == [False, True, False, False, False]
    assert [v.word for v in found] == [v.word for v in given_]  # a word stands on its own interval


def test_every_word_has_its_look_and_its_explanation() -> None:
    templates = Path(report.__file__).parent / "templates"
    css, meanings = (templates / "page.css").read_text(), (templates / "meanings.html.j2").read_text()
    docs = (PAPERS.parents[1] / "docs/claims.md").read_text()
    for word in WORDS:
        slug = word.replace(" ", "-")
        assert f".{slug} {{" in css
        assert f'"{word}": ("' in meanings
        assert f"| **{word}** |" in docs
