"""Arrays on disk: whole, checked, the same bytes for the same data, and cheap to open."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from turncoat.data import Dataset, Split, load, save
from turncoat.data.prepare import assemble
from turncoat.errors import TurncoatError
from turncoat.files import sha256


def make(seed: int = 0, **changes: Split) -> Dataset:
    rng = np.random.default_rng(seed)
    parts = {
        name: Split(rng.integers(0, 256, (n, 3, 4, 5), dtype=np.uint8), np.arange(n) % 3)
        for name, n in (("train", 30), ("validation", 9), ("test", 12))
    } | changes
    return assemble(
        "toy", "digits", ("a", "b", "c"), (parts["train"], parts["validation"], parts["test"]), {"train": 30}
    )


def test_round_trip(tmp_path: Path) -> None:
    made = make()
    save(made, tmp_path / "toy")
    read = load(tmp_path / "toy")
    assert (read.name, read.source, read.classes, read.shape) == ("toy", "digits", ("a", "b", "c"), (3, 4, 5))
    assert (read.mean, read.std, read.overlap, read.settings) == (made.mean, made.std, made.overlap, made.settings)
    for name, part in read.splits.items():
        assert np.array_equal(part.images, made.splits[name].images)
        assert np.array_equal(part.labels, made.splits[name].labels)
        assert isinstance(part.images, np.memmap)
        assert not part.images.flags.writeable
        assert (part.images.dtype, part.labels.dtype) == (np.uint8, np.int64)


def test_json_counts_images_and_classes(tmp_path: Path) -> None:
    save(make(), tmp_path / "toy")
    about = json.loads((tmp_path / "toy/dataset.json").read_text())
    assert about["counts"]["validation"] == {"images": 9, "per_class": [3, 3, 3]}
    assert about["shape"] == [3, 4, 5]
    assert about["sha256"]["test_images"] == sha256(tmp_path / "toy/test_images.npy")


def test_same_data_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save(make(), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 7
    assert all(sha256(tmp_path / "one" / name) == sha256(tmp_path / "two" / name) for name in files)


def test_saving_replaces_and_leaves_no_litter(tmp_path: Path) -> None:
    (tmp_path / ".toy.new").mkdir()  # of a process killed while it wrote
    (tmp_path / ".toy.new/train_images.npy").write_bytes(b"half")
    save(make(0), tmp_path / "toy")
    (tmp_path / "toy/stale.npy").write_bytes(b"of another version")
    save(make(1), tmp_path / "toy")
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    assert not (tmp_path / "toy/stale.npy").exists()
    assert np.array_equal(load(tmp_path / "toy").test.images, make(1).test.images)


def test_a_failed_save_leaves_the_old_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(make(0), tmp_path / "toy")
    before = sha256(tmp_path / "toy/dataset.json")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(TurncoatError, match=r"the disk is full; [\d,]+ bytes needed, [\d,]+ free"):
        save(make(1), tmp_path / "toy")
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    assert sha256(tmp_path / "toy/dataset.json") == before


@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy"])
def test_a_flipped_bit_stops_the_reader(tmp_path: Path, name: str) -> None:
    save(make(), tmp_path / "toy")
    content = bytearray((tmp_path / "toy" / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / "toy" / name).write_bytes(content)
    with pytest.raises(TurncoatError, match=f"{name}: differs from its checksum.*download@toy"):
        load(tmp_path / "toy")


def test_missing_and_malformed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TurncoatError, match=r"dataset\.json: cannot be read"):
        load(tmp_path / "toy")
    save(make(), tmp_path / "toy")
    (tmp_path / "toy/test_images.npy").unlink()
    with pytest.raises(TurncoatError, match=r"test_images\.npy: missing"):
        load(tmp_path / "toy")
    save(make(), tmp_path / "toy")
    (tmp_path / "toy/dataset.json").write_text('{"name": "toy"}')
    with pytest.raises(TurncoatError, match=r"dataset\.json: 'sha256' is missing"):
        load(tmp_path / "toy")


def test_reading_data_imports_no_torch() -> None:
    heavy = "{'torch', 'torchvision', 'sklearn', 'PIL', 'pydantic', 'urllib.request'}"
    code = f"import sys, turncoat.data; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
