"""Image files of any kind to uint8 arrays, each read as a viewer shows it, or named with what is wrong with it."""

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from tqdm import tqdm

from turncoat.errors import TurncoatError

# Named one by one: Pillow's others are documents and film formats, and EPS starts a program.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
Image.init()
READ = [name for name in FORMATS if name in Image.OPEN]  # a Pillow may be built without some
MAX_PIXELS = 64 << 20  # of one image; a file of some kilobytes can ask for billions
GREY = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")
LISTED = 5  # faults that a message lists; it counts the others
AT_ONCE = 256  # files whose content is in memory together

Pixels = NDArray[np.uint8]


class Unusable(TurncoatError):
    """Why one image cannot be used, without its name."""


@dataclass(frozen=True)
class Picture:
    """One image: `pixels` (1 or 3, H, W) and what had to be done to it; `sides`: height and width in the file.

    `notes`: "turned", "transparent", "CMYK", "16-bit", "enlarged".  `peak`: the brightest value of a 16-bit image.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()
    peak: int = 0
    sides: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Gathered:
    """Images (n, C, H, W), the SHA-256 of all that was read, its bytes, and how often what had to be done.

    `sides`: height and width of each image's file.
    """

    images: Pixels
    sha256: str
    bytes: int
    notes: dict[str, int]
    sides: tuple[tuple[int, int], ...] = ()


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """`image` scaled (bicubic, in proportion) until it just covers (height, width), and the middle cut out."""
    return ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)


def channels_first(image: Image.Image) -> Pixels:
    """(1 or 3, H, W)."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def decode(content: bytes, size: tuple[int, int] | None, stretch: bool = False) -> Picture:
    """Read one image file.

    Its rotation flag is obeyed, transparency laid over white, a palette resolved, 16-bit grey scaled by 255/65535 (of
    16-bit colour Pillow keeps the upper byte), CMYK converted by Pillow's formula, which knows no colour profile.

    Args:
        content: the bytes of the file.
        size: height and width wanted, or None: as it is.
        stretch: bring it to `size` whole, its proportions changed, as boxes and masks can follow; a rotation flag is
            refused then, for these may be of either way up.

    Raises:
        Unusable: it is no image, broken, animated, too large, or of a kind whose range of values is not known.
    """
    if not content:
        raise Unusable("it is empty")
    image: Image.Image = Image.open(io.BytesIO(content), formats=READ)
    if image.width * image.height > MAX_PIXELS:
        raise Unusable(f"{image.width}×{image.height} pixels, more than {MAX_PIXELS:,} in all; make it smaller")
    if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: a photograph with its preview
        raise Unusable("more than one frame or page; save the one that is meant")
    notes, peak = [], 0
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        if stretch:
            raise Unusable("its rotation flag turns it, and masks or boxes may be of either way up; save it upright")
        notes.append("turned")
    image = ImageOps.exif_transpose(image)
    grey = image.mode in GREY
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        peak = int(values.max())
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
        notes.append("16-bit")
    elif image.mode in ("I", "F"):
        raise Unusable(f"values of 32 bits (Pillow's mode {image.mode}) have no known range; save it with 8 or 16 bits")
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        if np.asarray(layer)[:, :, 3].min() < 255:
            white = Image.new("RGBA", layer.size, "white")
            white.alpha_composite(layer)
            image = white
            notes.append("transparent")
    elif image.mode == "CMYK":
        notes.append("CMYK")
    image = image.convert("L" if grey else "RGB")
    sides = (image.height, image.width)
    if size:
        if image.height < size[0] or image.width < size[1]:
            notes.append("enlarged")
        image = image.resize(size[::-1], Image.Resampling.BICUBIC) if stretch else resized(image, size)
    return Picture(channels_first(image), tuple(notes), peak, sides)


def gather(
    entries: Iterator[tuple[str, Path | bytes]],
    count: int,
    size: tuple[int, int] | None,
    where: str,
    stretch: bool = False,
) -> Gathered:
    """Read `count` images into one array; all grey ones have one channel, else all have three.

    Args:
        entries: name of an image in messages, and its file or its bytes.
        size: height and width that all are brought to; None: all must have one size already.
        where: what the images are called as a whole, in messages. stretch: see `decode`.

    Raises:
        TurncoatError: some cannot be used, each with its reason, or differ in size.
    """
    images: Pixels = np.empty(0, dtype=np.uint8)
    digest, total, colour = hashlib.sha256(), 0, 0
    notes: Counter[str] = Counter()
    faults: list[str] = []
    odd: list[str] = []
    all_sides: list[tuple[int, int]] = []
    first, place, peak = "", 0, 0
    bar = tqdm(total=count, desc=where, disable=None)
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        while some := list(islice(entries, AT_ONCE)):
            for (name, _), (read, result) in zip(
                some, pool.map(lambda entry: _read(entry[1], size, stretch), some), strict=True
            ):
                bar.update()
                total += len(read)
                digest.update(os.fsencode(name) + f"\0{len(read)}\0".encode() + hashlib.sha256(read).digest())
                if isinstance(result, str):
                    faults.append(f"{name}: {result}")
                    continue
                all_sides.append(result.sides)
                sides = result.pixels.shape[1:]
                if not first:
                    fits(3 * count * sides[0] * sides[1], where)
                    first, images = name, np.empty((count, 3, *sides), dtype=np.uint8)
                elif sides != images.shape[2:]:
                    odd.append(f"{name} ({sides[0]}×{sides[1]})")
                    continue
                images[place] = result.pixels  # one channel fills all three
                place += 1
                colour += len(result.pixels) == 3
                notes.update(result.notes)
                peak = max(peak, result.peak)
    bar.close()
    if faults:
        raise TurncoatError(
            listed(f"{where}: {len(faults):,} of {count:,} images cannot be used; mend or remove them", faults)
        )
    if odd:
        height, width = images.shape[2:]
        raise TurncoatError(
            f"{where}: images differ in size (height×width), as {first} ({height}×{width}) and {odd[0]}; "
            f"{len(odd):,} of {count:,} differ from the first. Set image_size, a side or [height, width]"
        )
    if not colour:
        images = images[:, :1]
    elif colour < count:
        notes["grey among colour"] = count - colour
    if peak and peak < 1 << 14:
        notes[f"16-bit with no value over {peak:,} of 65,535, so almost black"] = notes["16-bit"]
    return Gathered(images, digest.hexdigest(), total, dict(sorted(notes.items())), tuple(all_sides))


def fits(needed: int, where: str) -> None:
    """Refuse images of `needed` bytes where the memory could not hold them twice, as read and as split.

    Raises:
        TurncoatError: with both sizes.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 2 * needed > memory:
        raise TurncoatError(
            f"{where}: {needed / 1e9:,.1f} GB of pixels, held twice, and {memory / 1e9:,.1f} GB of memory; "
            "set a smaller image_size, or take fewer images"
        )


def listed(message: str, lines: Sequence[str]) -> str:
    """A message with the first few of many lines below it."""
    more = [f"and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else []
    return "\n  ".join([message + ":", *lines[:LISTED], *more])


def _read(source: Path | bytes, size: tuple[int, int] | None, stretch: bool) -> tuple[bytes, Picture | str]:
    """The bytes of an image, and the image or why it cannot be used."""
    content = b""
    try:
        if isinstance(source, Path):
            if not source.is_file():  # a pipe would be waited for, and a link may lead nowhere
                return content, "no file, or a link to none"
            content = source.read_bytes()
        else:
            content = source
        return content, decode(content, size, stretch)
    except Unusable as error:
        return content, str(error)
    except Exception as error:  # decoders of broken files raise almost anything
        return content, _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image of a kind that is read ({', '.join(READ)})"
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels; make it smaller"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return f"broken ({' '.join(str(error).split()) or type(error).__name__})"
