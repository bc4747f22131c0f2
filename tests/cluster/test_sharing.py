"""What one has computed another gets: records, figures and page, by `git clone` and `dvc pull`, without a cell run."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.cluster import services
from tests.faults.study import shell
from tests.stages.test_study import ran

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
DVC = (sys.executable, "-m", "dvc")
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b")


@pytest.fixture(params=["folder", "ssh", "s3"])
def remote(request, tmp_path):
    """Address and settings of a DVC remote."""
    place = tmp_path / "remote"
    place.mkdir()
    if request.param == "folder":
        yield str(place), {}
    elif request.param == "ssh":
        pytest.importorskip("dvc_ssh", reason="needs dvc-ssh: make cluster")
        with services.sshd(place) as (port, key):
            yield f"ssh://root@127.0.0.1:{port}{tmp_path}/shared", {"keyfile": str(key)}
    else:
        pytest.importorskip("dvc_s3", reason="needs dvc-s3: make cluster")
        with services.s3(place) as address:
            keys = {"access_key_id": "key", "secret_access_key": services.SECRET, "region": "us-east-1"}
            yield "s3://study/results", {"endpointurl": address, **keys}


def test_a_colleague_gets_all_results_without_computing(remote, alone, tmp_path):
    address, settings = remote
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    shutil.copytree(alone, mine, symlinks=True)
    (mine / ".dvc/config.local").unlink()
    shell(mine, "git", "init", "-q")
    shell(mine, *DVC, "remote", "add", "-d", "group", address)
    shell(mine, *GIT, "add", "-A")
    assert "dvc.lock" in shell(mine, "git", "ls-files")
    shell(mine, *GIT, "commit", "-qm", "study")
    know(mine, settings)
    shell(mine, *DVC, "push")
    shell(tmp_path, "git", "clone", "-q", str(mine), str(theirs))
    know(theirs, settings)
    assert not (theirs / "reports/report.html").exists()
    shell(theirs, *DVC, "pull")
    for name in (
        "report.html",
        "summary.json",
        "records/digits/pgd/0/record.json",
        "records/digits/pgd/0/examples.npz",
    ):
        assert (theirs / "reports" / name).read_bytes() == (mine / "reports" / name).read_bytes()
    figures = [path.relative_to(mine) for path in sorted((mine / "reports/figures").iterdir())]
    assert figures
    assert [(theirs / path).read_bytes() for path in figures] == [(mine / path).read_bytes() for path in figures]
    assert ran(shell(theirs, *DVC, "repro")) == []
    assert shell(theirs, "git", "status", "--porcelain") == ""


def know(folder: Path, settings: dict[str, str]) -> None:
    """Keys are a person's own: they stand in .dvc/config.local, which git does not see."""
    for name, value in settings.items():
        shell(folder, *DVC, "remote", "modify", "--local", "group", name, value)
