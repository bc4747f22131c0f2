"""Where a study writes: what cannot work is said in a line before anything runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages import inputs, repro
from stages.places import check_places
from turncoat.errors import TurncoatError

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_folder_and_a_used_one_are_fine(folder):
    check_places(["digits"])
    for name in ("data/digits", "models", ".scratch"):
        (folder / name).mkdir(parents=True)
    check_places(["digits"])
    assert not list((folder / "data/digits").iterdir())


@pytest.mark.parametrize("name", ["data", "models", "reports", "data/digits", "models/digits", "reports/records"])
def test_a_link_where_dvc_makes_outputs_is_refused(folder, name):
    (folder / "elsewhere").mkdir()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(folder / "elsewhere", target_is_directory=True)
    with pytest.raises(TurncoatError, match=rf"^{name}: a symbolic link .*remove the link.*`dvc cache dir "):
        check_places(["digits"])
    assert (folder / name).is_symlink()


def test_scratch_may_be_a_link_but_not_to_nowhere(folder):
    (folder / "big").mkdir()
    (folder / ".scratch").symlink_to(folder / "big")
    check_places([])
    (folder / "big").rmdir()
    with pytest.raises(TurncoatError, match=r"^\.scratch: a symbolic link to .*big, which is not there"):
        check_places([])


def test_a_file_in_the_place_of_a_folder_is_named(folder):
    (folder / "models").write_text("")
    with pytest.raises(TurncoatError, match="models: a file, where the study wants a folder"):
        check_places([])


@pytest.mark.parametrize("name", ["data", ".scratch", "data/digits"])
def test_a_folder_that_cannot_be_written_to_is_named(folder, name):
    (folder / name).mkdir(parents=True)
    (folder / name).parent.chmod(0o777)
    folder.chmod(0o777)
    (folder / name).chmod(0o555)
    program = (
        "import os, sys; sys.path[:0] = [{root!r}]; from stages.places import check_places\n"
        "from turncoat.errors import TurncoatError\n"
        "{drop}\n"
        "try: check_places(['digits'])\n"
        "except TurncoatError as error: print(error)\n"
    ).format(root=str(ROOT), drop=f"os.setuid({NOBODY})" if os.geteuid() == 0 else "")
    for above in folder.parents:  # pytest's own folders are closed to others
        if above.stat().st_uid == os.geteuid() and not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)
    said = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True).stdout.strip()
    assert said.startswith(f"{folder / name}: nothing can be written there (Permission denied)"), said
    assert "\n" not in said
    assert "dvc cache dir" in said


@pytest.mark.parametrize("main", [inputs.main, repro.main])
def test_a_study_begins_with_it(folder, main, monkeypatch):
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (folder / "elsewhere").mkdir()
    (folder / "data").symlink_to(folder / "elsewhere")
    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(TurncoatError, match="data: a symbolic link"):
        main()
