"""Faults in images of one's own: read rightly, or named, and never a traceback.

`tests/data/test_folder.py` shows what is read rightly: rotation flags, 16 bits, palettes, transparency, CMYK, shapes.
"""

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import cats_and_dogs, encoded, smooth
from tests.data.tiny import put
from tests.faults.test_data_faults import download
from turncoat.data import load
from turncoat.data.prepare import prepare
from turncoat.errors import TurncoatError
from turncoat.settings import DataSettings, validate


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TURNCOAT_MIRROR", raising=False)


def refused(root: Path, **settings: object) -> str:
    about = {"source": "folder", "path": str(root), "validation": 4, "test": 4} | settings
    with pytest.raises(TurncoatError) as caught:
        prepare("toy", validate(DataSettings, about, "datasets.toy.data"), root)
    return str(caught.value)


def bomb(width: int = 60000, height: int = 60000) -> bytes:
    """A PNG of a few kilobytes that asks for 3.6 billion pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def animated(kind: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(smooth(n)) for n in range(3)]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


WHOLE = encoded(smooth(99))
JPEG = encoded(smooth(99), "JPEG")
BAD = {
    "empty file": (b"", "it is empty"),
    "text under an image's name": (b"<html>not found</html>", "not an image of a kind that is read"),
    "PNG cut short": (WHOLE[: len(WHOLE) // 2], "broken"),
    "JPEG cut short": (JPEG[: len(JPEG) // 2], "broken .*[Tt]runcated"),
    "PNG with a flipped byte": (WHOLE[:60] + bytes([WHOLE[60] ^ 255]) + WHOLE[61:], "broken"),
    "animated GIF": (animated("GIF"), "more than one frame or page"),
    "animated PNG": (animated("PNG"), "more than one frame or page"),
    "animated WebP": (animated("WEBP"), "more than one frame or page"),
    "TIFF of three pages": (animated("TIFF"), "more than one frame or page"),
    "float TIFF": (encoded(np.zeros((48, 64), np.float32), "TIFF"), "values of 32 bits .*mode F.* 8 or 16 bits"),
    "integer TIFF": (encoded(np.zeros((48, 64), np.int32), "TIFF"), "values of 32 bits .*mode I.* 8 or 16 bits"),
    "decompression bomb": (bomb(), "more than 67,108,864 pixels"),
    "smaller bomb, which Pillow lets pass": (bomb(9000, 8000), "9000×8000 pixels, more than 67,108,864 in all"),
    "PostScript, which Pillow hands to a program": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n",
        "not an image",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.fault(
    34, "corrupt, animated, 32-bit, gigantic, no images at all in a folder", "each named with its reason"
)
def test_34_an_image_that_cannot_be_used_is_named(tmp_path: Path, case: str) -> None:
    content, reason = BAD[case]
    put(cats_and_dogs(tmp_path), {"dog/bad.png": content})
    message = refused(tmp_path, image_size=48)
    assert message.startswith(f"{tmp_path}: 1 of 25 images cannot be used; mend or remove them:\n  dog/bad.png: ")
    assert re.search(reason, message), message
    assert len(message.splitlines()) == 2


@pytest.mark.fault(34, "eight broken images at once", "five are named, the others counted")
def test_34_several_faults_are_listed_up_to_a_few(tmp_path: Path) -> None:
    put(cats_and_dogs(tmp_path), {f"dog/bad{n}.png": b"" for n in range(8)})
    lines = refused(tmp_path).splitlines()
    assert lines[0].endswith("8 of 32 images cannot be used; mend or remove them:")
    assert [line.split(":")[0].strip() for line in lines[1:]] == [*(f"dog/bad{n}.png" for n in range(5)), "and 3 more"]


@pytest.mark.fault(34, "a pipe, a dead link, an unreadable file in a folder", "named, and not waited for")
def test_34_what_is_no_plain_file_is_named(tmp_path: Path) -> None:
    cats_and_dogs(tmp_path)
    os.mkfifo(tmp_path / "cat/pipe.png")
    (tmp_path / "cat/dead.png").symlink_to("nowhere")
    message = refused(tmp_path)
    assert "cat/dead.png: no file, or a link to none" in message
    assert "cat/pipe.png: no file, or a link to none" in message


@pytest.mark.parametrize("cut", range(40, 400, 23))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000", "AVIF"])
@pytest.mark.fault(34, "files of nine formats with bytes overwritten", "read, or named; never a traceback")
def test_34_damaged_files_never_end_in_a_traceback(tmp_path: Path, kind: str, cut: int) -> None:
    content = bytearray(encoded(smooth(4), kind))
    rng = np.random.default_rng(cut)
    for place in rng.integers(8, len(content), 12):
        content[place] = rng.integers(0, 256)
    put(cats_and_dogs(tmp_path, each=4), {"dog/bad.png": bytes(content)})
    about = {"source": "folder", "path": str(tmp_path), "validation": 2, "test": 2, "image_size": 16}
    message = ""
    try:
        assert prepare("toy", validate(DataSettings, about, "datasets.toy.data"), tmp_path).shape == (3, 16, 16)
    except TurncoatError as error:
        message = str(error)
    if message:
        assert "1 of 9 images cannot be used" in message
        assert "dog/bad.png: " in message


@pytest.mark.fault(34, "classes: one only, empty, in test alone; no layout that is known", "stops, naming them")
def test_34_classes_that_cannot_be(tmp_path: Path) -> None:
    one = cats_and_dogs(tmp_path / "one")
    (one / "dog").rename(tmp_path / "dog")
    assert "one: 1 class (cat); a folder a class, at least two, wanted" in refused(one)
    (one / "bird").mkdir()
    (one / "fish").mkdir()
    assert refused(one).endswith("classes without an image in train; fill or remove the folder:\n  bird\n  fish")
    assert "no folder train, and no folders of classes (none)" in refused(tmp_path / "one/bird")
    apart = cats_and_dogs(tmp_path / "apart/train").parent
    put(cats_and_dogs(apart / "test", each=3), {"bird/a.png": WHOLE})
    assert refused(apart).endswith("test has 1 classes that train has not:\n  bird")
    (apart / "test/bird/a.png").unlink()
    (apart / "test/bird").rmdir()
    (apart / "test/cat").rename(apart / "extra")
    assert refused(apart).endswith("folders beside train that are no split; move them elsewhere:\n  extra")
    (apart / "extra").rename(apart / "val")
    (apart / "valid").mkdir()
    assert "val and valid are both validation; keep one" in refused(apart)
    flat = put(tmp_path / "flat", {f"{split}/{n}.png": WHOLE for split in ("train", "test") for n in range(3)})
    assert refused(flat).startswith(f"{flat}/train: 3 images outside the folders of classes:\n  0.png")
    assert "flat/gone: no such file or folder" in refused(flat / "gone")
    assert "0.png: a file; source folder reads folders" in refused(flat / "train/0.png")


@pytest.mark.fault(34, "the same images in train and in test", "stops with counts and names; one is said and stays")
def test_34_the_same_images_in_train_and_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cats_and_dogs(tmp_path / "train")
    put(
        tmp_path / "test",
        {
            f"{name}/{n}.png": encoded(smooth(7000 + 10 * k + n))
            for k, name in enumerate(("cat", "dog"))
            for n in range(4)
        },
    )
    about = {"source": "folder", "path": str(tmp_path), "validation": 2}
    put(tmp_path, {"test/cat/copy.png": (tmp_path / "train/cat/003.png").read_bytes()})
    data = prepare("toy", validate(DataSettings, about, "datasets.toy.data"), tmp_path)
    assert sum(data.overlap.values()) == 1
    said = r"1 identical images in \w+/test; they stay, for example:\n  train/cat/003\.png is test/cat/copy\.png"
    assert re.search(said, caplog.text)
    put(tmp_path, {f"test/dog/copy{n}.jpg": (tmp_path / f"train/dog/{n:03}.png").read_bytes() for n in range(6)})
    message = refused(tmp_path, validation=2, test=None)
    assert re.search(
        r"toy: [4-7] identical images in train/test \(train 22, validation 2, test 15\), more than 1%", message
    )
    assert re.search(r"\n  train/dog/00(\d)\.png is test/dog/copy\1\.jpg", message)


@pytest.mark.fault(34, "fields of `data` that do not go together", "stops before anything is read, naming them")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": "folder"}, "path is missing: the folder or file that source folder is to read"),
        (
            {"source": "digits", "path": "x", "validation": 9},
            "path: only folder, npz, parquet, masks, coco, voc read one",
        ),
        ({"source": "mnist"}, "validation is missing"),
        ({"source": "mnist", "validation": 9, "image_size": 32}, "image_size: images of mnist have one size"),
        ({"source": "imagenette", "validation": 9}, "image_size is missing"),
        ({"source": "imagenette", "validation": 9, "image_size": [160, 96]}, "image_size: .* become squares"),
        (
            {"source": "folder", "path": "x", "image_size": [48]},
            r"image_size: 8\.\.\.1024 pixels, or \[height, width\]",
        ),
        ({"source": "folder", "path": "x", "image_size": 4}, r"image_size: 8\.\.\.1024 pixels.*\(got 4\)"),
        ({"source": "folder", "path": "x", "image_size": [48, 64.0]}, r"image_size: .*\(got \[48, 64\.0\]\)"),
    ],
)
def test_34_fields_that_do_not_go_together(settings: dict[str, object], said: str) -> None:
    with pytest.raises(TurncoatError, match=said) as caught:
        validate(DataSettings, settings, "datasets.toy.data")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.fault(34, "16 bits, CMYK, grey, a rotation flag and another shape in one folder", "read rightly, counted")
def test_34_a_motley_folder_by_the_stage(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = (smooth(1, channels=1).astype(np.uint16) * 257).astype(np.uint16)
    put(
        cats_and_dogs(tmp_path / "project/pets"),
        {
            "cat/turned.jpg": encoded(smooth(2, 64, 48), "JPEG", exif=exif),
            "cat/deep.png": encoded(deep),
            "dog/print.jpg": encoded(Image.fromarray(smooth(3)).convert("CMYK"), "JPEG"),
            "dog/wide.webp": encoded(smooth(4, 48, 200), "WEBP"),
        },
    )
    status, said, _ = download(
        tmp_path / "project", source="folder", path="pets", validation=4, test=4, image_size=[48, 64]
    )
    assert status == 0, said
    assert "pets: 1 16-bit, 1 CMYK, 1 grey among colour, 1 turned" in said
    made = load(tmp_path / "project/data/toy")
    assert (made.shape, sum(len(part) for part in made.splits.values())) == ((3, 48, 64), 28)


@pytest.mark.fault(34, "images that the memory could not hold", "stops with both sizes before it is full")
def test_34_more_pixels_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cats_and_dogs(tmp_path)
    real = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: 100 if name == "SC_PHYS_PAGES" else real(name))
    assert "GB of pixels, held twice, and 0.0 GB of memory; set a smaller image_size" in refused(tmp_path)
