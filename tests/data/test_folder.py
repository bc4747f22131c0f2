"""Folders of images: every layout, every kind of file, splits and sizes; what is refused is fault 34."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import cats_and_dogs, encoded, smooth
from tests.data.tiny import put
from turncoat.data import Dataset, load, save
from turncoat.data.folder import listing
from turncoat.data.own import located
from turncoat.data.pictures import decode
from turncoat.data.prepare import prepare
from turncoat.errors import TurncoatError
from turncoat.settings import DataSettings, validate


def made(root: Path, **settings: object) -> Dataset:
    about = {"source": "folder", "path": str(root)} | settings
    return prepare("toy", validate(DataSettings, about, "datasets.toy.data"), root / ".cache")


def test_one_folder_is_split_stratified_by_the_seed(tmp_path: Path) -> None:
    cats_and_dogs(tmp_path)
    first = made(tmp_path, validation=4, test=6)
    assert first.classes == ("cat", "dog")
    assert first.shape == (3, 48, 64)
    assert [np.bincount(part.labels).tolist() for part in first.splits.values()] == [[7, 7], [2, 2], [3, 3]]
    again, other = made(tmp_path, validation=4, test=6), made(tmp_path, validation=4, test=6, split_seed=1)
    assert np.array_equal(first.test.images, again.test.images)
    assert not np.array_equal(first.test.images, other.test.images)
    stored = {image.tobytes() for part in first.splits.values() for image in part.images}
    assert stored == {
        smooth(1000 * label + index).transpose(2, 0, 1).tobytes() for label in (0, 1) for index in range(12)
    }
    cat = smooth(0).transpose(2, 0, 1)  # a label is its image's folder
    (label,) = [
        part.labels[place]
        for part in first.splits.values()
        for place, image in enumerate(part.images)
        if np.array_equal(image, cat)
    ]
    assert label == 0


def test_train_and_test_folders_stay_and_validation_comes_out_of_train(tmp_path: Path) -> None:
    cats_and_dogs(tmp_path / "train")
    put(tmp_path / "test", {f"{name}/x.png": encoded(smooth(9000 + n)) for n, name in enumerate(("cat", "dog"))})
    data = made(tmp_path, validation=4)
    assert [len(part) for part in data.splits.values()] == [20, 4, 2]
    dog = data.test.labels.tolist().index(1)
    assert np.array_equal(data.test.images[dog], smooth(9001).transpose(2, 0, 1))
    assert sorted(data.test.labels) == [0, 1]


def test_the_first_images_of_a_test_folder_are_of_all_classes(tmp_path: Path) -> None:
    cats_and_dogs(tmp_path / "train")
    for number, name in enumerate(("cat", "dog")):
        put(tmp_path / "test" / name, {f"{i}.png": encoded(smooth(100 * number + 5000 + i)) for i in range(6)})
    data = made(tmp_path, validation=4)
    for first in (2, 4, 8):
        assert set(np.bincount(data.test.labels[:first], minlength=2)) == {first // 2}


@pytest.mark.parametrize("name", ["validation", "valid", "val", "Val"])
def test_a_validation_folder_is_taken_whole_or_in_part(tmp_path: Path, name: str) -> None:
    cats_and_dogs(tmp_path / "train")
    files = {
        f"{label}/{n}.png": encoded(smooth(9000 + 10 * k + n))
        for k, label in enumerate(("cat", "dog"))
        for n in range(3)
    }
    put(tmp_path / name, files)
    whole, part = made(tmp_path, test=4), made(tmp_path, test=4, validation=2)
    assert [len(split) for split in whole.splits.values()] == [20, 6, 4]
    assert [len(split) for split in part.splits.values()] == [20, 2, 4]
    assert {image.tobytes() for image in part.validation.images} < {
        image.tobytes() for image in whole.validation.images
    }
    with pytest.raises(TurncoatError, match=r"datasets\.toy\.data\.test: .* no official test set; say how many"):
        made(tmp_path)


def test_without_a_validation_folder_its_number_must_be_said(tmp_path: Path) -> None:
    cats_and_dogs(tmp_path)
    with pytest.raises(TurncoatError, match=r"data\.validation: this data set has no validation set; say how many"):
        made(tmp_path, test=4)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    cats_and_dogs(tmp_path)
    (tmp_path / "dog").rename(tmp_path / "train")
    assert made(tmp_path, validation=4, test=4).classes == ("cat", "train")


def test_litter_is_left_out_and_order_does_not_depend_on_the_disk(tmp_path: Path) -> None:
    plain = made(cats_and_dogs(tmp_path / "plain"), validation=4, test=4)
    names = [f"{label}/{n:03}.png" for label in ("cat", "dog") for n in range(12)]
    for name in reversed(names):  # made in another order
        put(tmp_path / "full", {name: (tmp_path / "plain" / name).read_bytes()})
    litter = ["Thumbs.db", "cat/.DS_Store", "cat/Thumbs.db", "dog/desktop.ini", ".git/x.png", "cat/notes.txt", "a.csv"]
    put(tmp_path / "full", dict.fromkeys(litter, b"no image"))
    put(tmp_path / "full/__MACOSX/cat", {"._000.png": b"no image"})
    full = made(tmp_path / "full", validation=4, test=4)
    assert np.array_equal(plain.train.images, full.train.images)
    assert plain.settings["read"] == full.settings["read"]
    assert plain.settings["read"]["files"] == 24


def test_images_deeper_in_a_class_and_behind_links_are_read_once(tmp_path: Path) -> None:
    cats_and_dogs(tmp_path / "all")
    os.makedirs(tmp_path / "all/cat/deep")
    (tmp_path / "all/cat/000.png").rename(tmp_path / "all/cat/deep/a.png")
    (tmp_path / "all/dog").rename(tmp_path / "elsewhere")
    (tmp_path / "all/dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "all/cat/deep/back").symlink_to(tmp_path / "all/cat", target_is_directory=True)
    data = made(tmp_path / "all", validation=4, test=4)
    assert data.settings["read"]["files"] == 24


def test_a_class_name_in_decomposed_unicode_is_the_same_class(tmp_path: Path) -> None:
    for split in ("train", "test"):
        cats_and_dogs(tmp_path / split, each=4 if split == "train" else 2, height=8 if split == "train" else 9)
    (tmp_path / "train/cat").rename(tmp_path / "train/ka\u0308tzchen")
    (tmp_path / "test/cat").rename(tmp_path / "test/k\u00e4tzchen")
    assert made(tmp_path, validation=2, image_size=8).classes == ("dog", "k\u00e4tzchen")


# ------------------------------------------------------------------------------------------------------ kinds of file


@pytest.mark.parametrize(
    ("kind", "options", "off"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("PPM", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95}, 4),
        ("JPEG2000", {}, 0),
        ("AVIF", {"quality": 95}, 6),
    ],
)
def test_formats(kind: str, options: dict[str, object], off: int) -> None:
    image = smooth(3)
    read = decode(encoded(image, kind, **options), None)
    assert np.abs(read.pixels.transpose(1, 2, 0).astype(int) - image).max() <= off
    assert read.notes == ()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_the_rotation_flag_is_obeyed(kind: str, turn: int) -> None:
    image = np.zeros((16, 24, 3), dtype=np.uint8)
    image[:8, :8] = 255  # a white corner, to be found where the flag puts it
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    read = decode(encoded(image, kind, exif=exif, **options), None)
    upright = {
        1: image, 2: image[:, ::-1], 3: image[::-1, ::-1], 4: image[::-1], 5: image.transpose(1, 0, 2),
        6: np.rot90(image, -1), 7: image[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(image),
    }[turn]  # fmt: skip
    assert read.pixels.shape == (3, *upright.shape[:2])
    assert np.abs(read.pixels.transpose(1, 2, 0).astype(int) - upright).max() <= 2
    assert read.notes == (("turned",) if turn > 1 else ())


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(kind: str) -> None:
    values = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    read = decode(encoded(values, kind), None)
    assert read.pixels.shape == (1, 48, 64)
    assert np.array_equal(read.pixels[0], np.rint(values / 257))
    assert (read.notes, read.peak) == (("16-bit",), 65535)


def test_grey_palette_and_bilevel() -> None:
    grey = smooth(5, channels=1)
    assert np.array_equal(decode(encoded(grey), None).pixels[0], grey)
    bilevel = decode(encoded(Image.fromarray(grey > 128)), None)
    assert np.array_equal(bilevel.pixels[0], np.where(grey > 128, 255, 0))
    few = (smooth(6) // 64) * 64  # few colours, which a palette holds exactly
    palette = decode(encoded(Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE)), None)
    assert np.array_equal(palette.pixels.transpose(1, 2, 0), few)
    assert np.array_equal(decode(encoded(Image.fromarray(few).quantize(), "GIF"), None).pixels.transpose(1, 2, 0), few)


def test_transparency_lies_over_white() -> None:
    image = np.dstack([smooth(7), np.full((48, 64), 255, np.uint8)])
    assert decode(encoded(image), None).notes == ()
    assert np.array_equal(decode(encoded(image), None).pixels.transpose(1, 2, 0), image[:, :, :3])
    image[:8, :, 3] = 0
    image[8:16, :, 3] = 128
    read = decode(encoded(image), None)
    assert read.notes == ("transparent",)
    assert (read.pixels[:, :8] == 255).all()
    half = image[8:16, :, :3] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(read.pixels[:, 8:16].transpose(1, 2, 0) - half).max() <= 1
    grey = decode(encoded(Image.fromarray(image[:, :, [0, 3]], "LA")), None)
    assert grey.pixels.shape == (1, 48, 64)
    assert (grey.pixels[:, :8] == 255).all()


def test_cmyk_is_converted_and_said() -> None:
    image = smooth(8)
    read = decode(encoded(Image.fromarray(image).convert("CMYK"), "JPEG", quality=95), None)
    assert read.notes == ("CMYK",)
    assert np.abs(read.pixels.transpose(1, 2, 0).astype(int) - image).max() <= 8


# ------------------------------------------------------------------------------------------------------ sizes, colours


@pytest.mark.parametrize("size", [32, [32, 32], [24, 40], [48, 16]])
def test_images_are_scaled_in_proportion_and_cropped_to_the_middle(tmp_path: Path, size: object) -> None:
    height, width = (size, size) if isinstance(size, int) else size
    scale = max(height / 96, width / 128)
    image = np.zeros((96, 128, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:96, :128]
    image[(rows - 48) ** 2 + (columns - 64) ** 2 < 30**2] = 255  # a disc stays a disc
    read = decode(encoded(image), (height, width)).pixels[0] > 127
    assert read.shape == (height, width)
    middle = read[height // 2].sum(), read[:, width // 2].sum()
    for found, room in zip(middle, (width, height), strict=True):
        assert found == pytest.approx(min(60 * scale, room), abs=2)


def test_differing_sizes_need_image_size_and_two_files_are_named(tmp_path: Path) -> None:
    cats_and_dogs(tmp_path)
    put(tmp_path, {"dog/odd.png": encoded(smooth(1, 32, 32)), "dog/other.png": encoded(smooth(2, 64, 48))})
    with pytest.raises(
        TurncoatError, match=r"cat/000\.png \(48×64\) and dog/odd\.png \(32×32\); 2 of 26 .* Set image_size"
    ):
        made(tmp_path, validation=4, test=4)
    data = made(tmp_path, validation=4, test=4, image_size=[24, 32])
    assert data.shape == (3, 24, 32)


def test_grey_folders_have_one_channel_and_mixed_ones_three(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grey = cats_and_dogs(tmp_path / "grey", channels=1)
    assert made(grey, validation=4, test=4).shape == (1, 48, 64)
    assert caplog.text == ""
    put(grey, {"cat/colour.png": encoded(smooth(1))})
    mixed = made(grey, validation=4, test=4)
    assert mixed.shape == (3, 48, 64)
    assert "24 grey among colour" in caplog.text
    same = [np.array_equal(image[0], image[1]) for part in mixed.splits.values() for image in part.images]
    assert sum(same) == 24


def test_images_that_had_to_be_enlarged_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(cats_and_dogs(tmp_path), validation=4, test=4, image_size=64)
    assert "24 enlarged" in caplog.text


# ----------------------------------------------------------------------------------------------- path, checksum, store


def test_relative_paths_start_at_the_study_then_the_checkout_then_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("study", "checkout", "mirror"):
        (tmp_path / place / "pets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "checkout"))
    monkeypatch.setenv("TURNCOAT_MIRROR", str(tmp_path / "mirror"))
    for place in ("study", "checkout", "mirror"):
        assert located("pets") == tmp_path / place / "pets"
        assert located(str(tmp_path / "mirror/pets")) == tmp_path / "mirror/pets"
        (tmp_path / place / "pets").rmdir() if place != "mirror" else None
    (tmp_path / "mirror/pets").rmdir()
    with pytest.raises(
        TurncoatError, match=r"pets: no such file or folder \(.*study/pets, .*checkout/pets, .*mirror/pets\)"
    ):
        located("pets")


def test_the_checksum_is_of_content_and_names_and_the_data_set_is_stored_and_loaded(tmp_path: Path) -> None:
    root = cats_and_dogs(tmp_path / "pets")
    first = made(root, validation=4, test=4)
    save(first, tmp_path / "toy")
    assert load(tmp_path / "toy").settings["read"] == first.settings["read"]
    assert np.array_equal(load(tmp_path / "toy").train.images, first.train.images)
    os.utime(root / "cat/000.png", (1, 1))
    assert made(root, validation=4, test=4).settings["read"] == first.settings["read"]
    (root / "cat/000.png").write_bytes(encoded(smooth(12345)))
    assert made(root, validation=4, test=4).settings["read"]["sha256"] != first.settings["read"]["sha256"]


def test_the_listing_sees_every_change(tmp_path: Path) -> None:
    root = cats_and_dogs(tmp_path / "pets")
    seen = [listing(str(root))]
    assert seen[0]["files"] == 24
    assert listing(str(root)) == seen[0]
    put(root, {".hidden": b"", "Thumbs.db": b""})
    assert listing(str(root)) == seen[0]
    for change in (
        lambda: (root / "cat/000.png").rename(root / "cat/a.png"),
        lambda: (root / "cat/a.png").unlink(),
        lambda: put(root, {"dog/new.png": b"x"}),
        lambda: put(root, {"dog/new.png": b"y"}),
        lambda: (root / "dog/dead").symlink_to("nowhere"),
    ):
        time.sleep(0.02)  # times of change have the clock's ticks
        change()
        seen.append(listing(str(root)))
    assert len({about["sha256"] for about in seen}) == len(seen)
