"""What `pip install .` puts in place: all that the library reads, and an import that works in any folder."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that setuptools would pack into the wheel; nothing is fetched."""
    pytest.importorskip("setuptools")
    source = tmp_path_factory.mktemp("source")
    for name in ("turncoat", "stages"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # an older setuptools, as comes with Python 3.11, does not know a licence by its name, and none is packed here
    text = re.sub(r'^(license|readme) = ".*"\n', "", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    (source / "pyproject.toml").write_text(text)
    target = tmp_path_factory.mktemp("installed")
    command = [
        sys.executable,
        "-c",
        "from setuptools import setup; setup()",
        "-q",
        "build_py",
        "--build-lib",
        str(target),
    ]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return target


def test_every_file_of_the_library_is_installed(installed: Path) -> None:
    def below(folder: Path) -> set[str]:
        files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(folder)) for path in files}

    wanted = below(ROOT / "turncoat")
    assert any(name.endswith(".j2") for name in wanted)
    assert wanted <= below(installed / "turncoat")


def test_the_installed_library_works_in_any_folder(installed: Path, tmp_path: Path) -> None:
    code = """
import pathlib, pkgutil, importlib, turncoat
assert pathlib.Path(turncoat.__file__).is_relative_to(INSTALLED), turncoat.__file__
for module in pkgutil.walk_packages(turncoat.__path__, "turncoat."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from turncoat.reporting import style
import matplotlib.pyplot as plt
plt.style.use(str(pathlib.Path(style.__file__).parent / "paper.mplstyle"))
""".replace("INSTALLED", repr(str(installed)))
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(installed)!r})\n{code}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []  # and it leaves nothing there
