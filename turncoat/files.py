"""Files that are either whole or absent: atomic writes, checksums, strict JSON."""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from turncoat.errors import TurncoatError


def sha256(path: Path | str) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(*paths: Path | str) -> str:
    """Hex SHA-256 of files, and of the names and contents of folders' files; caches of Python are none of them.

    Raises:
        TurncoatError: there is nothing at one of the paths.
    """
    digest = hashlib.sha256()
    for path in map(Path, paths):
        if not path.exists():
            raise TurncoatError(f"{path}: its checksum is wanted, and it is not there")
        files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        for file in files or [path]:
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Write `content` so that after a crash `path` holds the old content or the new, never a part.

    The temporary file lies beside `path` (rename is atomic within one file system only); file and directory are
    synced, because a rename may otherwise reach the disk before the bytes do. A symbolic link stays one: its target is
    written. What is no regular file (a FIFO, a device) is written to plainly. A new file's permissions are the umask's,
    an old one keeps its own.

    Raises:
        TurncoatError: the disk is full or the folder read-only; the old file is untouched.
    """
    path, data = Path(path), content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        _write_plainly(path, data)
        return
    target = path.resolve() if path.is_symlink() else path
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask()
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except OSError as error:
        raise _refused(path, target, data, error) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)  # gone already where all went well
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_plainly(path: Path, data: bytes) -> None:
    try:
        with open(path, "wb", buffering=0) as file:
            while data:
                data = data[file.write(data) or 0 :]
    except OSError as error:
        raise TurncoatError(f"{path}: could not be written ({error.strerror})") from error


def _umask() -> int:
    """The process's umask, which can only be read by setting it; Linux tells it without."""
    try:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask"))
        return int(line.split()[1], 8)
    except (OSError, StopIteration, ValueError):
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def _refused(path: Path, target: Path, data: bytes, error: OSError) -> TurncoatError:
    there = next(folder for folder in target.absolute().parents if folder.exists())
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return TurncoatError(f"{path}: could not be written ({error.strerror}): {there} is read-only for this user")
    free = shutil.disk_usage(there).free
    return TurncoatError(f"{path}: could not be written ({error.strerror}): {len(data)} bytes needed, {free} free")


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON in the given key order. NaN and infinity are refused: no reader of a record should meet them."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read JSON; a missing or broken file is a `TurncoatError` that names it."""
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise TurncoatError(f"{path}: cannot be read ({error.strerror}); run `dvc repro` to make it") from error
    except ValueError as error:
        raise TurncoatError(f"{path}: not valid JSON ({error}); delete it and run `dvc repro`") from error
