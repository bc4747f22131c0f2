"""Kept studies: packed and unpacked without loss, and the records of each still give the numbers kept beside them."""

import shutil
from pathlib import Path

import pytest

from stages import reference
from tests.reporting import synthetic
from tests.reporting.conftest import ARMS
from turncoat.errors import TurncoatError
from turncoat.evaluation import build_suite
from turncoat.files import read_json, write_json
from turncoat.papers import chapters
from turncoat.papers.arms import check_arms
from turncoat.reporting import kept, report, study
from turncoat.reporting.contrast import contrast
from turncoat.reporting.measures import summary
from turncoat.settings import load

FOLDER = Path(__file__).parents[2] / kept.FOLDER
CHANGES = {"arms": ARMS, "datasets": ("digits", "cifar10")}


def stated() -> dict[str, object]:
    """All settings of the synthetic study, as data/settings.json has them."""
    resolved = {name: {arm: synthetic.resolve(name, arm) for arm in ARMS} for name in CHANGES["datasets"]}
    nothing: dict[str, object] = {name: {} for name in CHANGES["datasets"]}
    says = {"mart": "the paper's own", "rat": "of no arm of this study"}
    return synthetic.params(**CHANGES) | {"says": says, "resolved": {"arms": resolved, "pretrained": nothing}}


@pytest.fixture
def packed(built: Path, tmp_path: Path) -> Path:
    kept.keep(synthetic.study(built, **CHANGES), stated(), tmp_path / "kept")
    return tmp_path / "kept"


def test_a_page_from_the_kept_study_is_the_page(built: Path, packed: Path, tmp_path: Path) -> None:
    """Byte for byte: records, examples, histories and perturbed images, and all settings, came through."""
    settings, resolve = kept.read(packed)
    settings._says.clear()  # the page that it is compared with was made without
    kept.unpack(packed, tmp_path / "root")
    report.build(settings, resolve, chapters.load(), tmp_path / "root", kept=True)
    for file in ("report.html", "verdicts.json", "summary.json", "curves/training.csv"):
        assert (tmp_path / "root/reports" / file).read_bytes() == (built / "reports" / file).read_bytes(), file


def test_the_same_study_packs_into_the_same_bytes(built: Path, packed: Path, tmp_path: Path) -> None:
    """Wherever it lies and whenever its files were written."""
    for name in ("models", "data", "reports/records"):
        shutil.copytree(built / name, tmp_path / name, copy_function=shutil.copyfile)
    assert kept.packed(synthetic.study(tmp_path, **CHANGES)) == (packed / kept.RECORDS).read_bytes()


def test_a_default_that_came_later_makes_no_departure(packed: Path, tmp_path: Path) -> None:
    """Records of before it lack it: a running study would count them as of other settings."""
    values = read_json(packed / "settings.json")
    values["suites"]["quick"]["audit"] = 7
    write_json(packed / "settings.json", values)
    settings, resolve = kept.read(packed)
    kept.unpack(packed, tmp_path / "root")
    assert not study.load(settings, resolve, tmp_path / "root").records
    assert len(study.load(settings, resolve, tmp_path / "root", kept=True).records) == 2 * len(ARMS) * 2 - 1


def test_what_arms_are_comes_through_for_those_of_the_study(packed: Path) -> None:
    settings, resolve = kept.read(packed)
    assert settings.says == {"mart": "the paper's own"}
    assert resolve("digits", "mart") == synthetic.resolve("digits", "mart")


def test_a_damaged_archive_is_told_in_one_line(packed: Path, tmp_path: Path) -> None:
    content = (packed / kept.RECORDS).read_bytes()
    (packed / kept.RECORDS).write_bytes(content[: len(content) // 2])
    with pytest.raises(TurncoatError, match=r"records\.tar\.xz: cannot be unpacked"):
        kept.unpack(packed, tmp_path / "root")


def test_a_name_that_is_not_kept_is_refused() -> None:
    with pytest.raises(TurncoatError, match=r"no study is kept there; there are .*mnist-rat"):
        reference.build(["mnist-rats"])


@pytest.fixture(params=kept.names(FOLDER))
def reread(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, study.Study]:
    folder = FOLDER / request.param
    settings, resolve = kept.read(folder)
    kept.unpack(folder, tmp_path)
    return folder, study.load(settings, resolve, tmp_path, kept=True)


def test_each_kept_study_gives_its_numbers(reread: tuple[Path, study.Study]) -> None:
    folder, found = reread
    assert not found.missing
    assert summary(found) == read_json(folder / "summary.json")


@pytest.mark.parametrize(
    ("name", "dataset", "arms", "metric", "points"),
    [  # effects as the first pages of these studies had them
        ("fashion-default", "fashion_mnist", ("mart", "trades"), "pgd-20", 6.6),
        ("fashion-robust", "fashion_mnist", ("mart", "trades"), "pgd-20", 6.5),
        ("mnist-default", "mnist", ("mart", "trades"), "pgd-20", 22.2),
    ],
)
def test_an_effect_is_what_it_was(
    name: str, dataset: str, arms: tuple[str, str], metric: str, points: float, tmp_path: Path
) -> None:
    settings, resolve = kept.read(FOLDER / name)
    kept.unpack(FOLDER / name, tmp_path)
    found = contrast(study.load(settings, resolve, tmp_path, kept=True), dataset, arms, metric)
    assert found
    assert found.effect == pytest.approx(points, abs=1e-3)


def test_all_that_is_kept_is_small() -> None:
    # 6 MB of it are the scores of detections, of one study of boxes; of a classifier's study it is up to 1 MB
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 16e6


@pytest.mark.parametrize("name", [path.parent.name for path in sorted(kept.FOLDER.glob("*/params.yaml"))])
def test_a_kept_study_can_be_run_again_by_todays_code(name):
    settings = load(kept.FOLDER / name / "params.yaml")
    check_arms(settings)
    plan_of_suite = settings.suites[settings.study.suite]
    assert build_suite(settings.study.suite, plan_of_suite).attacks
