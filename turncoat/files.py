"""Files that are either whole or absent: atomic writes, checksums, strict JSON."""

import hashlib
import json
import os
import shutil
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
    synced, because a rename may otherwise reach the disk before the bytes do.

    Raises:
        TurncoatError: the disk is full; the old file is untouched, and needed and free bytes are named.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        there = next(folder for folder in path.absolute().parents if folder.exists())
        free = shutil.disk_usage(there).free
        raise TurncoatError(
            f"{path}: could not be written ({error.strerror}): {len(data)} bytes needed, {free} free"
        ) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)  # gone already where all went well
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


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
