"""The atlas: what is committed is what the kept records give, and nothing under a blocking flag counts."""

from pathlib import Path

import pytest

from stages import reference
from tests.reporting import synthetic
from tests.reporting.conftest import ARMS
from turncoat.errors import TurncoatError
from turncoat.files import read_json
from turncoat.papers import chapters
from turncoat.reporting import atlas, kept

ROOT = Path(__file__).parents[2]
PAPERS = [chapter.paper for chapter in chapters.load()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the atlas made anew from the kept records, and a README with its table."""
    folder = tmp_path_factory.mktemp("atlas")
    (folder / "README.md").write_text(f"before\n{atlas.MARKS[0]}\nold\n{atlas.MARKS[1]}\nafter\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(reference, "BUILT", folder / "built")
        reference.atlas(folder, folder / "README.md")
    return folder


@pytest.mark.parametrize("file", ["atlas.html", "atlas.json"])
def test_the_committed_atlas_is_of_the_kept_records(made: Path, file: str) -> None:
    assert (made / file).read_bytes() == (ROOT / kept.FOLDER / file).read_bytes(), "run `make atlas`"


def test_the_table_of_the_readme_is_of_the_kept_records(made: Path) -> None:
    text = (made / "README.md").read_text()
    assert text.startswith(f"before\n{atlas.MARKS[0]}\n| Paper |")
    assert text.endswith(f" |\n{atlas.MARKS[1]}\nafter\n")
    table = text.split(atlas.MARKS[0])[1].split(atlas.MARKS[1])[0]
    assert table.count("\n| ") == len(PAPERS) + 1
    readme = (ROOT / "README.md").read_text()
    assert table == readme.split(atlas.MARKS[0])[1].split(atlas.MARKS[1])[0], "run `make atlas`"


def test_a_readme_without_marks_is_refused() -> None:
    with pytest.raises(TurncoatError, match="are wanted, once each"):
        atlas.written("no marks\n", "table\n", Path("README.md"))


def test_nothing_under_a_blocking_flag_counts(tmp_path: Path) -> None:
    """The flag shows in the row, and the headline counts one data set less."""
    synthetic.write(tmp_path, n=200)
    clean = atlas.table({"s": synthetic.study(tmp_path, arms=ARMS)}, PAPERS)
    flag = {"name": "broken", "attack": None, "detail": "attacks fail", "blocks": True}
    synthetic.edit(tmp_path, "digits/mart/0", lambda record: record["flags"].append(flag))
    flagged = atlas.table({"s": synthetic.study(tmp_path, arms=ARMS)}, PAPERS)
    mine = [row for row in flagged if row["study"] and "mart" in str(row["cells"]) and "broken" in row["why"]]
    assert mine
    assert not any(row["counts"] for row in mine)
    assert {row["word"] for row in mine} == {"unreliable"}
    claims = {row["claim"] for row in mine}
    assert any(row["counts"] for row in clean if row["claim"] in claims)
    assert atlas.headline(PAPERS[0], clean) != atlas.headline(PAPERS[0], flagged)
    assert "attacks fail" in atlas.page(PAPERS, flagged, {})


def test_of_two_studies_of_a_claim_the_more_precise_stands_in_the_readme(tmp_path: Path) -> None:
    synthetic.write(tmp_path, n=200)
    rows = atlas.table({"narrow": synthetic.study(tmp_path, arms=ARMS)}, PAPERS)
    wide = [row | {"study": "wide", "interval": [row["interval"][0] - 1, row["interval"][1]]}
            for row in rows if row["study"] and row["interval"]]  # fmt: skip
    assert wide
    for both in (rows + wide, wide + rows):
        assert "(`narrow`)" in atlas.lines(PAPERS, both)
        assert "(`wide`)" not in atlas.lines(PAPERS, both)


def test_the_headline_takes_the_most_precise_study_of_a_data_set_and_names_the_undecided() -> None:
    paper = next(paper for paper in PAPERS if paper.name == "rat")
    claim = next(claim.id for claim in paper.claims if claim.kind == "headline")

    def row(dataset: str, word: str, half: float, counts: bool = True) -> atlas.Row:
        told = {"claim": claim, "study": "s", "measured": "this ahead of that", "counts": counts}
        return told | {"dataset": dataset, "word": word, "interval": [-half, half]}

    rows = [row("digits", "reproduced", 2), row("digits", "not reproduced", 1), row("mnist", "inconclusive", 1),
            row("cifar10", "reproduced", 3), row("cifar10", "unreliable", 1, counts=False)]  # fmt: skip
    for given in (rows, rows[::-1]):
        first = atlas.headline(paper, given).split(";")[0]
        assert first == "this ahead of that on 1 of 2 data sets (cifar10, digits), undecided on mnist"


def test_a_headline_names_the_arms_and_the_attack_that_stood_for_the_claim(made: Path) -> None:
    """On digits AToP is measured by other arms and another attack than its claim is about."""
    rows = [row for row in read_json(made / "atlas.json") if row["claim"] == "atop-autoattack" and row["study"]]
    assert "atop ahead of purifier-rt2 under worst" in {row["measured"] for row in rows if row["dataset"] == "digits"}
    told = atlas.headline(next(paper for paper in PAPERS if paper.name == "atop"), rows)
    assert told.startswith("atop ahead of purifier-rt2 under worst on ")
    assert "atop-authors ahead of purifier-authors under clean" not in told


def test_costs_are_told_of_claims_without_a_verdict_in_their_own_setting_alone() -> None:
    costs = read_json(ROOT / kept.FOLDER / "costs.json")
    claims = [claim for paper in PAPERS for claim in paper.claims]
    assert costs.keys() == {claim.id for claim in claims if claim.datasets}, "run python -m benchmarks.claim_costs"
    rows = [{"claim": "rat-universal", "counts": True, "own_setting": True},
            {"claim": "rat-fgsm", "counts": True, "own_setting": False},
            {"claim": "rat-pgd", "counts": False, "own_setting": True}]  # fmt: skip
    left = {row["claim"]: row for row in atlas.outstanding(PAPERS, rows, costs)}
    assert left.keys() == costs.keys() - {"rat-universal"}
    assert left["mart-over-pgd"]["network"] == "resnet18"
    assert left["mart-over-pgd"]["gpu_hours"] == costs["mart-over-pgd"]["gpu_hours"] > 0


def test_what_was_not_run_says_what_is_missing(tmp_path: Path) -> None:
    synthetic.write(tmp_path, n=200)
    rows = atlas.table({"s": synthetic.study(tmp_path, arms=ARMS)}, PAPERS)
    why = next(row["why"] for row in rows if row["claim"] == "atop-cifar100")
    assert why == "no kept study has measured autoattack of atop-authors and purifier-authors"
