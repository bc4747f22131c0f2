"""Files are whole or absent, and what is no plain file stays what it is."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from turncoat.errors import TurncoatError
from turncoat.files import read_json, write_atomic, write_json


def test_a_symbolic_link_stays_one_and_its_target_is_written(tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far/results.json", tmp_path / "results.json"
    link.symlink_to(target)
    write_json(link, {"a": 1})  # the target is not there yet
    write_json(link, {"a": 2})
    assert link.is_symlink()
    assert read_json(target) == {"a": 2}
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["results.json"]
    assert not target.is_symlink()


def test_links_that_lead_round_in_a_circle_are_told(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises((TurncoatError, RuntimeError, OSError), match=r"a: .*|[Ss]ymlink loop|Too many levels"):
        write_atomic(tmp_path / "a", "x")


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    content = "x" * 300_000  # more than a pipe holds at a time
    write_atomic(pipe, content)
    reader.join(20)
    assert read == [content.encode()]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_devices_are_written_to_and_stay():
    before = os.stat("/dev/null")
    write_json("/dev/null", {"a": 1})
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.stat("/dev/null").st_ino == before.st_ino
    program = "from turncoat.files import write_json; write_json('/dev/stdout', {'a': 1})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == '{\n "a": 1\n}\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_a_full_device_is_told_in_one_line():
    with pytest.raises(TurncoatError, match=r"^/dev/full: could not be written \(No space left on device\)"):
        write_atomic("/dev/full", "x")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_the_umask_and_an_old_one_its_own(tmp_path, mask):
    program = (
        f"import os; os.umask({mask}); from turncoat.files import write_atomic; write_atomic('new', 'x')\n"
        "os.chmod('old', 0o640); write_atomic('old', 'y'); assert open('old').read() == 'y'"
    )
    (tmp_path / "old").write_text("x")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, env=environment)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
