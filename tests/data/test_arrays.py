"""NumPy archives and Parquet files of one's own: every accepted form gives the same images; other forms are named."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.pictures import encoded, smooth
from turncoat.data import Dataset
from turncoat.data.prepare import prepare
from turncoat.errors import TurncoatError
from turncoat.settings import DataSettings, validate

IMAGES = np.stack([smooth(index) for index in range(24)])
LABELS = np.arange(24) % 2
FIRST = IMAGES.transpose(0, 3, 1, 2)


def made(path: Path, source: str, **settings: object) -> Dataset:
    about = {"source": source, "path": str(path), "validation": 4, "test": 4} | settings
    return prepare("toy", validate(DataSettings, about, "datasets.toy.data"), path.parent)


def pairs(data: Dataset) -> set[tuple[bytes, int]]:
    return {
        (image.tobytes(), int(label))
        for part in data.splits.values()
        for image, label in zip(part.images, part.labels, strict=True)
    }


ALL = {(image.tobytes(), int(label)) for image, label in zip(FIRST, LABELS, strict=True)}


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": IMAGES, "labels": LABELS},
        {"images": FIRST, "labels": LABELS.astype(np.uint8)[:, None]},
        {"images": IMAGES.astype(np.int64), "labels": LABELS},
        {"images": (FIRST / 255).astype(np.float32), "labels": LABELS},
        {"x_train": IMAGES, "y_train": LABELS},
    ],
    ids=["channels last", "channels first, labels in a column", "int64", "float", "Keras"],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, arrays: dict[str, np.ndarray], save, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "a.npz", **arrays)
    data = made(tmp_path / "a.npz", "npz")
    assert pairs(data) == ALL
    assert (data.shape, data.classes) == ((3, 48, 64), ("0", "1"))
    assert ("24 rounded from float32" in caplog.text) == (next(iter(arrays.values())).dtype == np.float32)


def test_npz_with_sets_of_its_own_names_and_a_size(tmp_path: Path) -> None:
    grey = IMAGES[:, :, :, 0]
    np.savez(
        tmp_path / "med.npz",
        train_images=grey[:16],
        train_labels=LABELS[:16],
        val_images=grey[16:20],
        val_labels=LABELS[16:20],
        test_images=grey[20:],
        test_labels=LABELS[20:],
        class_names=np.array(["cat", "dog"]),
    )
    data = made(tmp_path / "med.npz", "npz", validation=None, test=None)
    assert [len(part) for part in data.splits.values()] == [16, 4, 4]
    assert np.array_equal(data.test.images[:, 0], grey[20:])
    assert np.array_equal(data.validation.images[:, 0], grey[16:20])
    assert data.classes == ("cat", "dog")
    small = made(tmp_path / "med.npz", "npz", validation=None, test=None, image_size=[24, 32])
    assert small.shape == (1, 24, 32)
    halves = grey[20:].reshape(4, 24, 2, 32, 2).mean((2, 4))
    assert np.abs(small.test.images[:, 0] - halves)[:, :, 2:-2].max() <= 1  # ramps, resized, stay ramps


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": IMAGES * 2.0, "labels": LABELS}, r"float64 from .* 0\.\.\.255, or floats in \[0, 1\]"),
        ({"images": FIRST / 127.5 - 1, "labels": LABELS}, "Undo a normalisation before saving"),
        ({"images": np.full_like(FIRST, np.nan, dtype=float), "labels": LABELS}, "float64 from nan to nan"),
        ({"images": IMAGES.astype(np.uint16) * 257, "labels": LABELS}, "uint16 from"),
        ({"images": IMAGES[..., :2], "labels": LABELS}, r"1 or 3 channels\]\) wanted, .* not \(24, 48, 64, 2\)"),
        ({"images": IMAGES.reshape(24, -1), "labels": LABELS}, r"not \(24, 9216\)"),
        ({"images": IMAGES, "labels": np.eye(2)[LABELS]}, r"labels: \(24,\) whole numbers wanted, .*take argmax\(1\)"),
        ({"images": IMAGES, "labels": LABELS[:23]}, r"labels: \(24,\) whole numbers wanted, not int64 \(23,\)"),
        ({"images": IMAGES, "labels": LABELS + 1}, "no training image of 0"),
        ({"images": IMAGES, "labels": LABELS - 1}, "labels lie outside"),
        ({"images": IMAGES, "labels": LABELS * 0}, "one class only"),
        ({"images": IMAGES}, "images without labels"),
        ({"data": IMAGES, "labels": LABELS}, "no training images; .* there are data, labels"),
        ({"images": IMAGES, "labels": LABELS, "x_train": IMAGES}, "images and x_train are both train"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, :32, :32], "y_test": LABELS},
            r"its sets differ in shape: \(3, 32, 32\), \(3, 48, 64\)",
        ),
    ],
)  # fmt: skip
def test_npz_of_another_form_is_named(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(TurncoatError, match=said):
        made(tmp_path / "a.npz", "npz")


class Poison:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.fault(6, "a pickle among the arrays of a .npz, or in its place", "refused, nothing executed")
def test_a_pickle_in_an_npz_is_refused_unread(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.array([Poison(tmp_path / "executed")] * 24, dtype=object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Poison(tmp_path / "executed")))
    (tmp_path / "c.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:5000])
    for name, said in (
        ("a", "holds Python objects"),
        ("b", "no readable .npz archive"),
        ("c", "no readable .npz archive"),
    ):
        with pytest.raises(TurncoatError, match=said):
            made(tmp_path / f"{name}.npz", "npz")
    assert not (tmp_path / "executed").exists()


# ------------------------------------------------------------------------------------------------------------- Parquet


def table(images: np.ndarray, labels: np.ndarray, names: list[str] | None = None, column: str = "label") -> pa.Table:
    """What the hub's converter writes: image struct{bytes, path}, labels with their names in the metadata."""
    rows = [{"bytes": encoded(image), "path": f"{n}.png"} for n, image in enumerate(images)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    made = pa.table({"image": pa.array(rows, kind), column: pa.array(labels, pa.int64())})
    if names is None:
        return made
    features = {"image": {"_type": "Image"}, column: {"_type": "ClassLabel", "names": names}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def stream(made: pa.Table, path: Path) -> None:
    """What `save_to_disk` writes: the same table in Arrow's stream format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made, max_chunksize=7)


def test_parquet_of_one_file_is_split(tmp_path: Path) -> None:
    pq.write_table(table(IMAGES, LABELS, ["cat", "dog"]), tmp_path / "a.parquet", row_group_size=5)
    data = made(tmp_path / "a.parquet", "parquet")
    assert pairs(data) == ALL
    assert (data.shape, data.classes) == ((3, 48, 64), ("cat", "dog"))
    assert data.settings["read"]["files"] == 1
    pq.write_table(table(IMAGES, LABELS), tmp_path / "plain.parquet")
    plain = made(tmp_path / "plain.parquet", "parquet")
    assert pairs(plain) == ALL
    assert plain.classes == ("0", "1")


@pytest.mark.parametrize(
    "layout", ["data/{}-0000{}-of-00002.parquet", "{}/000{}.parquet", "{}/data-0000{}-of-00002.arrow"]
)
def test_parquet_and_arrow_folders_with_splits(tmp_path: Path, layout: str) -> None:
    for split, rows in (("train", range(16)), ("validation", range(16, 20)), ("test", range(20, 24))):
        for shard in (0, 1):
            own = [row for row in rows if row // 2 % 2 == shard]
            whole, path = (
                table(IMAGES[own], LABELS[own], ["cat", "dog"], "animal"),
                tmp_path / layout.format(split, shard),
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            stream(whole, path) if path.suffix == ".arrow" else pq.write_table(whole, path)
    data = made(tmp_path, "parquet", validation=None, test=None)
    assert pairs(data) == ALL
    assert [len(part) for part in data.splits.values()] == [16, 4, 4]
    assert {image.tobytes() for image in data.test.images} == {image.tobytes() for image in FIRST[20:]}
    assert data.classes == ("cat", "dog")
    assert made(tmp_path, "parquet", image_size=[24, 32], validation=None, test=None).shape == (3, 24, 32)


def test_parquet_of_another_form_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"

    def said(of: pa.Table | bytes) -> str:
        path.write_bytes(of) if isinstance(of, bytes) else pq.write_table(of, path)
        with pytest.raises(TurncoatError) as caught:
            made(path, "parquet")
        return str(caught.value)

    good = table(IMAGES, LABELS)
    assert "one of labels (whole numbers named label, or a ClassLabel) wanted; there are image:" in said(
        good.drop(["label"])
    )
    assert "one column of images" in said(good.drop(["image"]))
    assert "no readable Parquet file" in said(b"PAR1 and nothing else")
    rows = [{"bytes": None, "path": "x.png"}, *good["image"].to_pylist()[1:]]
    assert "1 of 24 images cannot be used" in said(good.set_column(0, "image", pa.array(rows, good["image"].type)))
    assert "row 0: it is empty" in said(good.set_column(0, "image", pa.array(rows, good["image"].type)))
    assert "labels lie outside 0...1" in said(table(IMAGES, np.where(LABELS == 0, -1, 1)))
    whole = path.read_bytes()
    assert "read" in said(whole[:200] + bytes(400) + whole[600:])  # the footer is whole, a page is not
    (tmp_path / "folder").mkdir()
    pq.write_table(good, tmp_path / "folder/test-00000.parquet")
    with pytest.raises(
        TurncoatError, match=r"folder: no file train\*\.parquet or folder train among its 1 Parquet files"
    ):
        made(tmp_path / "folder", "parquet")
