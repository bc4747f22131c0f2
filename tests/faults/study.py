"""A study of one's own to do harm to: the working tree's code in a folder that is no git repository."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.stages.test_study import ENVIRONMENT, ROOT, edit, shell, shrink

CODE = ("stages", "turncoat", ".dvc")
FILES = ("tests/params.yaml", "dvc.yaml", ".dvcignore", ".gitignore")


def lay(folder: Path, change: Callable[[dict], None] = shrink) -> Path:
    """Copy code and settings to `folder`, the settings changed; nothing has run there yet."""
    for name in CODE:
        skipped = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    for name in FILES:
        shutil.copy(ROOT / name, folder / Path(name).name)
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    edit(folder, change)
    return folder


def copy(study: Path, folder: Path) -> Path:
    """A finished study once more, with its cache."""
    return Path(shutil.copytree(study, folder, symlinks=True))


def stage(folder: Path, name: str, *arguments: str, ok: bool = True, **environment: str) -> str:
    """Run one stage as DVC runs it; what it said."""
    command = [sys.executable, "-m", f"stages.{name}", *arguments]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT | environment, capture_output=True, text=True)
    assert done.returncode == (0 if ok else 2), done.stdout + done.stderr
    assert ok or "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def stages(folder: Path, steps: Iterable[Sequence[str]]) -> None:
    """Run stages, each a name and its arguments, one after the other in one process: torch is imported once."""
    program = (
        "import importlib, sys\n"
        f"for name, *arguments in {[list(step) for step in steps]!r}:\n"
        "    sys.argv = [name, *arguments]\n"
        "    importlib.import_module(f'stages.{name}').main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


__all__ = ["ENVIRONMENT", "ROOT", "copy", "edit", "lay", "shell", "shrink", "stage", "stages"]
