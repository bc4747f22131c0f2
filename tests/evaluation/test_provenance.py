"""What a record says of the code that made it."""

import subprocess

import pytest

from turncoat.evaluation.recording import commit


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A committed checkout in small, as the working folder."""
    for name in ("stages/evaluate.py", "turncoat/files.py", "docs/log.md", "params.yaml", "dvc.yaml", "dvc.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("as committed\n")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for command in ("init -q", "add -A", "-c user.name=a -c user.email=a@b commit -qm all"):
        subprocess.run(["git", *command.split()], check=True)
    return tmp_path


def test_settings_documents_and_caches_are_no_code(checkout):
    for name in ("params.yaml", "dvc.lock", "docs/log.md"):
        (checkout / name).write_text("edited")
    (checkout / "turncoat/__pycache__").mkdir()
    (checkout / "turncoat/__pycache__/files.pyc").write_text("compiled")
    assert len(commit()["commit"]) == 40
    assert commit()["dirty"] is False


@pytest.mark.parametrize("edited", ["stages/evaluate.py", "turncoat/files.py", "dvc.yaml", "turncoat/new/one.py"])
def test_edited_and_added_code_is(checkout, edited):
    (checkout / edited).parent.mkdir(exist_ok=True)
    (checkout / edited).write_text("edited")
    assert commit()["dirty"] is True


def test_without_git_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() == {"commit": None, "dirty": None}
