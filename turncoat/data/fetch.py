"""Raw files: found in the cache or the mirror folder, or downloaded; checked by size and md5 before they are opened.

The order is cache, mirror (the folder named by the environment variable `TURNCOAT_MIRROR`), network.  A file that
differs from the published one in the cache is fetched anew; in the mirror it stops the run, because the mirror is
somebody else's folder and only they can mend it.
"""

import contextlib
import errno
import hashlib
import http.client
import logging
import os
import shutil
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from turncoat import __version__
from turncoat.data.sources import RawFile
from turncoat.errors import TurncoatError

MIRROR = "TURNCOAT_MIRROR"
TIMEOUT = 10.0  # seconds without a byte, after which an address is given up
BLOCK = 1 << 18  # bytes

log = logging.getLogger(__name__)


class WrongFile(TurncoatError):
    """A file that is not the published one: truncated, altered, or another file under its name."""


def mirror_folder() -> Path | None:
    """The folder named by `TURNCOAT_MIRROR`, or None when it is unset or empty.

    Raises:
        TurncoatError: it is set but names no folder.
    """
    value = os.environ.get(MIRROR, "")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise TurncoatError(f"{MIRROR}={value}: no such folder; name one that holds the data sets, or unset it")
    return folder


def verify(path: Path, md5: str, size: int | None = None) -> None:
    """Compare a file with its published size (bytes) and md5.

    Raises:
        WrongFile: it differs; nothing of it has been parsed.
    """
    found = path.stat().st_size
    if size is not None and found != size:
        raise WrongFile(f"{path}: {found:,} bytes, but the published file has {size:,}; fetch it again")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != md5:
        raise WrongFile(f"{path}: md5 {digest}, but the published file has {md5}; fetch it again")


def in_mirror(file: RawFile, source: str, mirror: Path) -> Path | None:
    """Find and verify `file` in a mirror; layouts of torchvision, of one folder a data set, and flat are understood.

    Returns:
        The file, or the folder of its unpacked content, or None when the mirror has neither.

    Raises:
        WrongFile: something lies there under the right name, but it is not the published file.
    """
    class_folder = file.path.split("/")[0]
    bases = (mirror, mirror / source, mirror / class_folder)
    for base in bases:
        if file.unpacked and (folder := base / next(iter(file.unpacked)).split("/")[0]).is_dir():
            for path, md5 in file.unpacked.items():
                if not (base / path).is_file():
                    raise WrongFile(f"{base / path}: missing; copy it there, or {file.name} beside {folder}")
                verify(base / path, md5)
            return folder
    wrong: WrongFile | None = None
    for base in bases:
        for candidate in (base / file.path, base / "raw" / file.name, base / file.name):
            if candidate.is_file():
                try:
                    verify(candidate, file.md5, file.size)
                except WrongFile as error:  # MNIST's and Fashion-MNIST's files share their names: look on
                    wrong = wrong or error
                else:
                    return candidate
    if wrong:
        raise wrong
    return None


def download(file: RawFile, target: Path) -> None:
    """Download `file` to `target`, trying its addresses in turn.

    The bytes go to a `.part` file, which is renamed once size and md5 match: no part is ever taken for the whole.
    A progress bar is drawn on a terminal only.

    Raises:
        ConnectionError: no address gave the file; the message has each host's reason.
        TurncoatError: the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    reasons = []
    for url in file.urls:
        try:
            _download_from(url, file, part)
            os.replace(part, target)
        except (OSError, http.client.HTTPException, WrongFile) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                free = shutil.disk_usage(target.parent).free
                raise TurncoatError(f"{target}: the disk is full; {file.size:,} bytes needed, {free:,} free") from error
            reasons.append(f"{urlsplit(url).netloc}: {getattr(error, 'reason', None) or error or type(error).__name__}")
        else:
            return
        finally:
            part.unlink(missing_ok=True)
    raise ConnectionError("; ".join(reasons))


def _download_from(url: str, file: RawFile, part: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": f"turncoat/{__version__}"})
    md5, received = hashlib.md5(usedforsecurity=False), 0
    with (
        urllib.request.urlopen(request, timeout=TIMEOUT) as response,
        open(part, "wb") as out,
        tqdm(total=file.size, unit="B", unit_scale=True, desc=file.name, disable=None) as bar,
    ):
        while block := response.read(BLOCK):
            received += len(block)
            if received > file.size:  # an endless answer must not fill the disk
                raise WrongFile(f"sent more than the published {file.size:,} bytes")
            out.write(block)
            md5.update(block)
            bar.update(len(block))
    if received < file.size:
        raise WrongFile(f"ended after {received:,} of {file.size:,} bytes")
    if md5.hexdigest() != file.md5:
        raise WrongFile(f"sent another file (md5 {md5.hexdigest()}, published {file.md5})")


def obtain(files: tuple[RawFile, ...], source: str, cache: Path) -> list[Path]:
    """Have every file of a data set at hand, verified.

    Args:
        files: what `sources.raw_files` lists for `source`.
        cache: folder for downloads.

    Returns:
        The path of each file in cache or mirror; for an archive that the mirror holds unpacked, that folder.

    Raises:
        TurncoatError: a file is wrong, or neither cache, mirror nor network has it.
    """
    mirror = mirror_folder()
    found = []
    for file in files:
        cached = cache / file.path
        if cached.is_file():
            try:
                verify(cached, file.md5, file.size)
                found.append(cached)
                continue
            except WrongFile as error:
                log.warning("%s", error)
                with contextlib.suppress(OSError):
                    cached.unlink()
        if mirror and (path := in_mirror(file, source, mirror)):
            found.append(path)
            continue
        try:
            download(file, cached)
        except ConnectionError as error:
            raise TurncoatError(_unavailable(source, files, cache, mirror, error)) from error
        found.append(cached)
    return found


def _unavailable(
    source: str, files: tuple[RawFile, ...], cache: Path, mirror: Path | None, error: ConnectionError
) -> str:
    """What a person without network needs to know: which files, where to put them, and what works without any."""
    where = f"{MIRROR}={mirror} does not hold it" if mirror else f"{MIRROR} is not set"
    listed = "\n".join(f"  {file.path}  ({file.size:,} bytes, md5 {file.md5})\n    {file.urls[0]}" for file in files)
    return (
        f"{source} could not be downloaded ({error}) and {where}.\n"
        f"Fetch elsewhere and put below a folder of your choice, which {MIRROR} then names, or below {cache}:\n"
        f"{listed}\n"
        "Offline, the data set `digits` needs no download: study.datasets: [digits]"
    )
