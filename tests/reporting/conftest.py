"""A synthetic study with its report, built once for all tests that read it."""

import shutil
from pathlib import Path

import pytest

from tests.reporting import synthetic
from turncoat.papers import chapters
from turncoat.reporting import report

ARMS = ["standard", "pgd", "trades", "mart", "mart-no-kl"]


def build(root: Path) -> None:
    """Build the report of the study that lies below `root`."""
    settings = synthetic.settings(arms=ARMS, datasets=("digits", "cifar10"))
    report.build(settings, synthetic.resolve, chapters.load(), root)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a study whose report was built: digits lacks one cell, cifar10 all but seed 0."""
    root = tmp_path_factory.mktemp("study")
    synthetic.write(root, n=200)
    synthetic.write(root, seeds=(0,), datasets=("cifar10",), n=200)
    shutil.rmtree(root / "reports/records/digits/trades/2")
    build(root)
    return root
