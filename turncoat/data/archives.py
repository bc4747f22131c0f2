"""Verified archives, unpacked with suspicion into a folder that exists only while it is read.

The checksum of an archive is compared before this module sees it.  Its members are looked at all the same, because a
table of checksums can be edited, and an archive must not be able to write outside its folder whoever vouched for it.
"""

import errno
import gzip
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from turncoat.errors import TurncoatError

MAX_EXPANSION = 40  # unpacked bytes per byte of archive; the data sets of this study stay below 12


@contextmanager
def unpacked(raw: dict[str, Path], scratch: Path) -> Iterator[Path]:
    """A temporary folder with the content of verified files, in torchvision's layout.

    Args:
        raw: place below the folder -> file (`.gz`, `.tar`, `.tar.gz`, `.tgz`) or folder with already unpacked content.
        scratch: where the temporary folder is made; it is gone when the context ends, by an error too.

    Raises:
        TurncoatError: an archive is unsafe or broken, or the disk is full.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    for stray in scratch.glob("unpacking-*"):  # left by a killed process; the caller holds the lock
        shutil.rmtree(stray, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="unpacking-", dir=scratch) as folder:
        root = Path(folder)
        for place, path in raw.items():
            try:
                _unpack(path, root, place)
            except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
                raise TurncoatError(f"{path}: broken archive ({error})") from error
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                free = shutil.disk_usage(scratch).free
                raise TurncoatError(f"{scratch}: the disk is full ({free:,} bytes free) unpacking {path}") from error
        yield root


def _unpack(path: Path, root: Path, place: str) -> None:
    if path.is_dir():
        (root / path.name).symlink_to(path.resolve(), target_is_directory=True)
    elif path.name.endswith((".tar.gz", ".tgz", ".tar")):
        untar(path, root)
    else:
        target = root / place.removesuffix(".gz")
        target.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path) as packed, open(target, "wb") as out:
            shutil.copyfileobj(packed, out)


def untar(archive: Path, root: Path) -> None:
    """Unpack a tar, gzipped or plain, below `root` after every one of its members was found harmless.

    Only folders and plain files with relative names inside `root` are accepted: no `..`, absolute path, link or device.
    Written out rather than left to `tarfile.extractall(filter="data")`, which Python 3.11.0 to 3.11.3 lack.

    Raises:
        TurncoatError: a member is refused; nothing was unpacked.
        tarfile.TarError, EOFError, gzip.BadGzipFile: the archive is broken.
    """
    with tarfile.open(archive, "r:*") as tar:
        members = tar.getmembers()
        for member in members:
            if fault := _fault(member):
                raise TurncoatError(f"{archive}: refused, member {member.name!r} {fault}; nothing was unpacked")
        size, limit = sum(member.size for member in members), MAX_EXPANSION * archive.stat().st_size
        if size > limit:
            raise TurncoatError(f"{archive}: refused, would unpack to {size:,} bytes (limit {limit:,})")
        for member in members:
            target = root / member.name
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            if content is not None:
                with content, open(target, "wb") as out:
                    shutil.copyfileobj(content, out)


def _fault(member: tarfile.TarInfo) -> str | None:
    """Why a member is not unpacked, or None."""
    if not (member.isreg() or member.isdir()):
        return "is a link or a device"
    name = PurePosixPath(member.name.replace(os.sep, "/"))
    if name.is_absolute():
        return "has an absolute path"
    if ".." in name.parts:
        return "leaves its folder"
    return None
