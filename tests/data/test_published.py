"""Reading through torchvision's classes: tiny archives in the true formats, from a mirror folder to arrays."""

import fcntl
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from tests.data.tiny import cifar_batch, jpeg, md5, mnist, put, raw_file, tar
from turncoat.data import sources
from turncoat.data.prepare import prepare
from turncoat.data.published import read
from turncoat.errors import TurncoatError
from turncoat.settings import DataSettings


def test_the_table_agrees_with_torchvision() -> None:
    for source, kind in (("mnist", torchvision.datasets.MNIST), ("fashion_mnist", torchvision.datasets.FashionMNIST)):
        files = sources.raw_files(source)
        assert [(file.name, file.md5) for file in files] == kind.resources
        assert {file.urls[0].removesuffix(file.name) for file in files} <= set(kind.mirrors)
        assert {file.path.split("/")[0] for file in files} == {kind.__name__}
    for source, kind in (("cifar10", torchvision.datasets.CIFAR10), ("cifar100", torchvision.datasets.CIFAR100)):
        (file,) = sources.raw_files(source)
        assert (file.path, file.md5, file.urls) == (kind.filename, kind.tgz_md5, (kind.url,))
        members = [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]
        assert file.unpacked == {f"{kind.base_folder}/{name}": checksum for name, checksum in members}
    for size, (url, checksum) in torchvision.datasets.Imagenette._ARCHIVES.items():
        assert (sources.IMAGENETTE[size].urls, sources.IMAGENETTE[size].md5) == ((url,), checksum)


@pytest.mark.parametrize(
    ("image_size", "archive"),
    [(64, "imagenette2-160.tgz"), (160, "imagenette2-160.tgz"), (161, "imagenette2-320.tgz"), (321, "imagenette2.tgz")],
)
def test_imagenette_is_taken_from_the_smallest_archive_that_is_large_enough(image_size: int, archive: str) -> None:
    assert [file.name for file in sources.raw_files("imagenette", image_size)] == [archive]


def test_unknown_source_lists_those_there_are() -> None:
    with pytest.raises(TurncoatError, match="unknown data set source 'minst'; there are: digits, mnist"):
        sources.raw_files("minst")


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist"])
def test_mnist_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    contents = mnist(np.random.default_rng(0))
    if source == "fashion_mnist":
        contents = {path.replace("MNIST/", "FashionMNIST/"): content for path, content in contents.items()}
    monkeypatch.setitem(sources.FILES, source, tuple(raw_file(path, content) for path, content in contents.items()))
    monkeypatch.setenv("TURNCOAT_MIRROR", str(put(tmp_path / "mirror", contents)))
    made = prepare("toy", DataSettings(source=source, validation=10), tmp_path / "cache")
    assert (made.shape, len(made.train), len(made.validation), len(made.test)) == ((1, 28, 28), 30, 10, 20)
    pixels = np.random.default_rng(0)
    pixels.integers(0, 256, (40, 28, 28))
    assert np.array_equal(made.test.images[:, 0], pixels.integers(0, 256, (20, 28, 28)))
    assert made.test.labels.tolist() == [*range(10)] * 2
    assert len(made.classes) == 10
    assert os.listdir(tmp_path / "cache") == [".lock"]  # the unpacked files are gone


def cifar(name: str, rng: np.random.Generator) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """The content of a CIFAR archive with ten images a file, and the images of each file."""
    kind = getattr(torchvision.datasets, name)
    key, classes = ("labels", 10) if name == "CIFAR10" else ("fine_labels", 5)
    images = {
        file: rng.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8) for file, _ in kind.train_list + kind.test_list
    }
    labels = [index % classes for index in range(10)]
    content = {f"{kind.base_folder}/{file}": cifar_batch(part, labels, key) for file, part in images.items()}
    meta = {kind.meta["key"]: [f"class {index}" for index in range(classes)]}
    content[f"{kind.base_folder}/{kind.meta['filename']}"] = pickle.dumps(meta, protocol=2)
    return content, images


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("source", "name"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_cifar_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str, packed: bool) -> None:
    content, images = cifar(name, np.random.default_rng(0))
    kind, archive = getattr(torchvision.datasets, name), tar(content)
    for attribute in ("train_list", "test_list"):  # torchvision compares the md5 of each batch before it loads it
        files = [[file, md5(content[f"{kind.base_folder}/{file}"])] for file, _ in getattr(kind, attribute)]
        monkeypatch.setattr(kind, attribute, files)
    meta = kind.meta | {"md5": md5(content[f"{kind.base_folder}/{kind.meta['filename']}"])}
    monkeypatch.setattr(kind, "meta", meta)
    file = raw_file(kind.filename, archive, unpacked={path: md5(part) for path, part in content.items()})
    monkeypatch.setitem(sources.FILES, source, (file,))
    mirror = put(tmp_path / "mirror", {kind.filename: archive} if packed else content)
    monkeypatch.setenv("TURNCOAT_MIRROR", str(mirror))
    raw = read(source, sources.raw_files(source), tmp_path / "cache")
    assert raw.test is not None
    train = np.concatenate([images[file] for file, _ in kind.train_list])
    assert np.array_equal(raw.train.images, train)
    assert np.array_equal(raw.test.images, images[kind.test_list[0][0]])
    assert raw.classes[:2] == ("class 0", "class 1")
    assert os.listdir(tmp_path / "cache") == [".lock"]
    left = {str(path.relative_to(mirror)) for path in mirror.rglob("*") if path.is_file()}
    assert left == ({kind.filename} if packed else set(content))  # the mirror is as it was


def test_imagenette_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    names = list(torchvision.datasets.Imagenette._WNID_TO_CLASS)
    content = {
        f"imagenette2-160/{part}/{wnid}/{index}.jpeg": jpeg(rng, 160 + 20 * index, 160)
        for part, n in (("train", 4), ("val", 2))
        for wnid in names
        for index in range(n)
    }
    archive = tar(content)
    monkeypatch.setenv("TURNCOAT_MIRROR", str(put(tmp_path / "mirror", {"imagenette2-160.tgz": archive})))
    settings = DataSettings(source="imagenette", validation=10, image_size=64)
    monkeypatch.setitem(sources.IMAGENETTE, "160px", raw_file("imagenette2-160.tgz", archive))
    made = prepare("toy", settings, tmp_path / "cache")
    assert (made.shape, len(made.train), len(made.test)) == ((3, 64, 64), 30, 20)
    assert made.classes[:2] == ("tench", "English springer")
    assert np.bincount(made.test.labels).tolist() == [2] * 10
    assert len(set(made.test.labels[:10].tolist())) > 2  # not class by class
    again = prepare("toy", settings, tmp_path / "cache")
    assert np.array_equal(made.train.images, again.train.images)


def test_digits_are_scikit_learns(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    made = prepare("digits", DataSettings(source="digits", train=400, validation=400, test=997), tmp_path / "cache")
    assert [len(part) for part in made.splits.values()] == [400, 400, 997]
    assert (made.shape, made.classes) == ((1, 8, 8), tuple("0123456789"))
    digits = load_digits()
    published = {image.astype(int).tobytes(): label for image, label in zip(digits.images, digits.target, strict=True)}
    for image, label in zip(made.test.images, made.test.labels, strict=True):
        assert published[np.rint(image[0] * (16 / 255)).astype(int).tobytes()] == label  # 17 grey levels survive 8 bits
    assert not (tmp_path / "cache").exists()


def test_two_downloads_of_one_source_wait_for_each_other(tmp_path: Path) -> None:
    contents = mnist(np.random.default_rng(0))
    mirror = put(tmp_path / "mirror", contents)
    cache = tmp_path / "cache"
    cache.mkdir()
    code = (
        "from pathlib import Path; from tests.data.tiny import raw_file; from turncoat.data.published import read\n"
        f"mirror = Path({str(mirror)!r})\n"
        f"files = tuple(raw_file(p, (mirror / p).read_bytes()) for p in {list(contents)!r})\n"
        f"print(len(read('mnist', files, Path({str(cache)!r})).train))"
    )
    with open(cache / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"TURNCOAT_MIRROR": str(mirror), "PYTHONPATH": os.getcwd()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert "another process is downloading here; waiting for it" in process.stderr.readline()
        assert process.poll() is None
    out, error = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "40\n"), error


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = mnist(np.random.default_rng(0))
    monkeypatch.setenv("TURNCOAT_MIRROR", str(put(tmp_path / "mirror", contents)))
    put(tmp_path / "cache", {"unpacking-abc/MNIST/raw/train-images-idx3-ubyte": b"half"})
    files = tuple(raw_file(path, content) for path, content in contents.items())
    assert len(read("mnist", files, tmp_path / "cache").train) == 40
    assert os.listdir(tmp_path / "cache") == [".lock"]
