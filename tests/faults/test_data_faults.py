"""Faults in data sets: poisoned, truncated, wrong and hostile files, no network, labels and splits that cannot be.

The stage runs as a user runs it, in a process of its own; archives are real ones, and the network is taken away by
sending every request to a proxy that is not there.
"""

import contextlib
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.data.tiny import cifar_batch, idx, mnist, put, raw_file, serve, tar
from tests.defaults import DEFAULTS
from turncoat.data import Split, load, save, sources
from turncoat.data.archives import MAX_EXPANSION
from turncoat.data.fetch import obtain
from turncoat.data.prepare import assemble, prepare
from turncoat.data.published import read
from turncoat.errors import TurncoatError
from turncoat.files import read_json, sha256, write_json
from turncoat.reading import read_yaml
from turncoat.settings import DataSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TURNCOAT_MIRROR", raising=False)


def download(project: Path, mirror: Path | None = None, **data: object) -> tuple[int, str, float]:
    """Run the download stage for a data set `toy` in `project`, without network: exit status, message, seconds."""
    project.mkdir(exist_ok=True)
    params = read_yaml(DEFAULTS)
    params["datasets"] = {"toy": params["datasets"]["digits"] | {"data": data}}
    params["study"]["datasets"] = ["toy"]
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    nowhere = "http://127.0.0.1:9"
    env = os.environ | {"PYTHONPATH": str(ROOT), "http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": ""}
    env |= {"TURNCOAT_MIRROR": str(mirror)} if mirror else {}
    start = time.monotonic()
    command = [sys.executable, "-m", "stages.download", "--dataset", "toy"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 or "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr, time.monotonic() - start


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


class Poison:
    """Unpickling this makes a file: what a hostile pickle could do, made visible."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.mark), "w")


# ------------------------------------------------------------------------------------------------ fault 6: poison


def test_06_the_poison_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Poison(tmp_path / "executed")))  # noqa: S301 - that is the point
    assert (tmp_path / "executed").exists()


@pytest.mark.fault(6, "a poisoned pickle as CIFAR-10 batch in the mirror", "refused unread")
def test_06_poisoned_batch_in_the_mirror_is_refused_unread(tmp_path: Path) -> None:
    poison = pickle.dumps(Poison(tmp_path / "executed"))
    mirror = put(tmp_path / "mirror", dict.fromkeys(sources.CIFAR10.unpacked, poison))
    status, message, _ = download(tmp_path / "project", mirror, source="cifar10", validation=100)
    assert status == 2
    assert "cifar-10-batches-py/data_batch_1: md5" in message
    assert "fetch it again" in message
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "project/data").exists()


@pytest.mark.fault(6, "a poisoned archive of the published size", "refused unread")
def test_06_poisoned_archive_of_the_right_size_is_refused_unread(tmp_path: Path) -> None:
    poison = pickle.dumps(Poison(tmp_path / "executed"))
    mirror = put(tmp_path / "mirror", {"cifar-10-python.tar.gz": tar(dict.fromkeys(sources.CIFAR10.unpacked, poison))})
    with open(mirror / "cifar-10-python.tar.gz", "r+b") as file:
        file.truncate(sources.CIFAR10.size)  # a hole of zeros: gzip ignores them after its end
    status, message, _ = download(tmp_path / "project", mirror, source="cifar10", validation=100)
    assert status == 2
    assert f"but the published file has {sources.CIFAR10.md5}" in message
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("listed", "refusal"),
    [(True, "data_batch_1 in it is not the published file"), (False, r"torchvision refused .*corrupted")],
)
@pytest.mark.fault(6, "a poisoned archive with a forged checksum", "each batch is compared again, refused")
def test_06_archive_vouched_for_but_with_batches_that_are_not_the_published_ones(
    tmp_path: Path, listed: bool, refusal: str
) -> None:
    """A forged checksum of the archive opens no door: each batch is compared again, by us and by torchvision."""
    poison = pickle.dumps(Poison(tmp_path / "executed"))
    content = tar(dict.fromkeys(sources.CIFAR10.unpacked, poison))
    put(tmp_path / "cache", {"cifar-10-python.tar.gz": content})
    file = raw_file("cifar-10-python.tar.gz", content, unpacked=dict(sources.CIFAR10.unpacked) if listed else None)
    with pytest.raises(TurncoatError, match=refusal):
        read("cifar10", (file,), tmp_path / "cache")
    assert not (tmp_path / "executed").exists()
    assert files_below(tmp_path) == ["cache/.lock", "cache/cifar-10-python.tar.gz"]


@pytest.mark.fault(6, "a pickled array in data/, checksum to match", "refused, nothing executed")
def test_06_pickled_array_among_the_stored_ones_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [Split(rng.integers(0, 256, (6, 1, 4, 4), dtype=np.uint8), np.arange(6) % 2) for _ in range(3)]
    save(assemble("toy", "mnist", ("a", "b"), (parts[0], parts[1], parts[2]), {}), tmp_path / "toy")
    path = tmp_path / "toy/train_labels.npy"
    np.save(path, np.array([Poison(tmp_path / "executed")], dtype=object), allow_pickle=True)
    about = read_json(tmp_path / "toy/dataset.json")
    about["sha256"]["train_labels"] = sha256(path)  # even with a checksum to match
    write_json(tmp_path / "toy/dataset.json", about)
    with pytest.raises(TurncoatError, match=r"train_labels\.npy: refused"):
        load(tmp_path / "toy")
    assert not (tmp_path / "executed").exists()


# ---------------------------------------------------------------------------------------- fault 19: hostile archives


@pytest.mark.parametrize("keep", [0, 1000, -1])
@pytest.mark.fault(19, "an empty, a truncated, a cut file in the mirror", "stops with both sizes, nothing left")
def test_19_truncated_file_in_the_mirror(tmp_path: Path, keep: int) -> None:
    content = mnist(np.random.default_rng(0))["MNIST/raw/train-images-idx3-ubyte.gz"][:keep]
    mirror = put(tmp_path / "mirror", {"MNIST/raw/train-images-idx3-ubyte.gz": content})
    status, message, _ = download(tmp_path / "project", mirror, source="mnist", validation=100)
    assert status == 2
    assert f"train-images-idx3-ubyte.gz: {len(content):,} bytes, but the published file has 9,912,422" in message
    assert not (tmp_path / "project/data").exists()
    assert files_below(tmp_path / "project/.scratch") == ["downloads/mnist/.lock"]


def hostile(member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    """A gzipped tar with a harmless file before the hostile member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        good = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        good.size = 4
        archive.addfile(good, io.BytesIO(b"good"))
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        (_member("../evil"), "leaves its folder"),
        (_member("cifar-10-batches-py/../../evil"), "leaves its folder"),
        (_member("ABSOLUTE/evil"), "has an absolute path"),
        (_member("cifar-10-batches-py/out", tarfile.SYMTYPE, "/"), "is a link or a device"),
        (_member("cifar-10-batches-py/out", tarfile.SYMTYPE, "../.."), "is a link or a device"),
        (_member("cifar-10-batches-py/out", tarfile.LNKTYPE, "../../../params.yaml"), "is a link or a device"),
        (_member("cifar-10-batches-py/out", tarfile.FIFOTYPE), "is a link or a device"),
        (_member("cifar-10-batches-py/out", tarfile.CHRTYPE), "is a link or a device"),
    ],
)
@pytest.mark.fault(19, "../, absolute paths, links, devices in an archive", "refused, nothing unpacked")
def test_19_hostile_member_stops_before_anything_is_unpacked(
    tmp_path: Path, member: tarfile.TarInfo, fault: str
) -> None:
    member.name = member.name.replace("ABSOLUTE", str(tmp_path))
    content = hostile(member)
    put(tmp_path / "cache", {"cifar-10-python.tar.gz": content})
    with pytest.raises(TurncoatError, match=f"refused, member .* {fault}; nothing was unpacked"):
        read("cifar10", (raw_file("cifar-10-python.tar.gz", content),), tmp_path / "cache")
    assert files_below(tmp_path) == ["cache/.lock", "cache/cifar-10-python.tar.gz"]


@pytest.mark.fault(19, "an archive that expands a thousandfold", "refused, with the size")
def test_19_archive_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    content = tar({"cifar-10-batches-py/data_batch_1": bytes(20_000_000)})
    assert len(content) * MAX_EXPANSION < 20_000_000
    put(tmp_path / "cache", {"cifar-10-python.tar.gz": content})
    with pytest.raises(TurncoatError, match="refused, would unpack to 20,000,000 bytes"):
        read("cifar10", (raw_file("cifar-10-python.tar.gz", content),), tmp_path / "cache")
    assert files_below(tmp_path) == ["cache/.lock", "cache/cifar-10-python.tar.gz"]


@pytest.mark.parametrize("source", ["cifar10", "mnist"])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
@pytest.mark.fault(19, "a broken archive with a forged checksum", "stops, nothing half-unpacked")
def test_19_archive_broken_although_its_checksum_matched_leaves_nothing(
    tmp_path: Path, source: str, part: float
) -> None:
    rng = np.random.default_rng(0)
    if source == "mnist":
        path, whole = "MNIST/raw/train-images-idx3-ubyte.gz", idx(rng.integers(0, 256, (40, 28, 28)))
    else:
        batch = cifar_batch(rng.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8), [*range(10)])
        path, whole = "cifar-10-python.tar.gz", tar(dict.fromkeys(sources.CIFAR10.unpacked, batch))
    content = whole[: int(part * len(whole))] or b"<html>not found</html>"
    put(tmp_path / "cache", {path: content})
    with pytest.raises(TurncoatError, match="broken archive"):
        read(source, (raw_file(path, content),), tmp_path / "cache")
    assert files_below(tmp_path) == sorted(["cache/.lock", f"cache/{path}"])
    assert not list((tmp_path / "cache").glob("unpacking-*"))


@pytest.mark.fault(19, "a transfer that ends early", "not taken for the file")
def test_19_broken_transfer_is_not_taken_for_a_download(tmp_path: Path) -> None:
    content = mnist(np.random.default_rng(0))["MNIST/raw/train-images-idx3-ubyte.gz"]
    with serve({"/f.gz": (206, content[:-200])}) as (url, _), pytest.raises(TurncoatError, match="ended after"):
        read("mnist", (raw_file("f.gz", content, f"{url}/f.gz"),), tmp_path / "cache")
    assert files_below(tmp_path) == ["cache/.lock"]


@pytest.mark.fault(19, "a download killed halfway", "begun again, whole")
def test_19_download_killed_halfway_is_begun_again(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3_000_000)
    cache = tmp_path / "cache"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def half() -> None:
            connection, _ = server.accept()
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + content[:2_000_000])
            with contextlib.suppress(ConnectionError):
                connection.recv(1)  # until the other side is dead

        threading.Thread(target=half, daemon=True).start()
        file = raw_file("f.gz", content, f"http://127.0.0.1:{server.getsockname()[1]}/f.gz")
        code = (
            "from pathlib import Path\nfrom turncoat.data.fetch import obtain\n"
            "from turncoat.data.sources import RawFile\n"
            f"obtain((RawFile('f.gz', {file.md5!r}, {file.size}, {file.urls!r}),), 'toy', Path({str(cache)!r}))"
        )
        process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
        part, deadline = cache / "f.gz.part", time.monotonic() + 30
        while not (part.exists() and part.stat().st_size > 1_000_000):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert files_below(cache) == ["f.gz.part"]  # under its own name, so never taken for the file
    with serve({"/f.gz": (200, content)}) as (url, _):
        obtain((raw_file("f.gz", content, f"{url}/f.gz"),), "toy", cache)
    assert files_below(cache) == ["f.gz"]
    assert (cache / "f.gz").read_bytes() == content


# ------------------------------------------------------------------------------------------- fault 20: no network


@pytest.mark.parametrize(
    "data",
    [{"source": source} for source in sources.FILES if not source.startswith("voc")]  # these are of other tasks
    + [{"source": "imagenette", "image_size": 160}],
)
@pytest.mark.fault(
    20,
    "each data set without network and mirror",
    "stops, with files, checksums, addresses, the folder, the offline default",
)
def test_20_offline_without_a_mirror(tmp_path: Path, data: dict[str, object]) -> None:
    status, message, seconds = download(tmp_path / "project", validation=100, **data)
    assert status == 2
    for file in sources.raw_files(str(data["source"]), 160):
        assert file.path in message
        assert file.md5 in message
        assert file.urls[0] in message
    assert "TURNCOAT_MIRROR is not set" in message
    assert ".scratch/downloads" in message
    assert "Offline, the data set `digits` needs no download" in message
    assert not (tmp_path / "project/data").exists()
    assert files_below(tmp_path / "project/.scratch") == [f"downloads/{data['source']}/.lock"]
    assert seconds < 20


@pytest.mark.fault(20, "a mirror that lacks the data set", "stops, names the mirror")
def test_20_a_mirror_without_the_data_set_is_named(tmp_path: Path) -> None:
    mirror = put(tmp_path / "mirror", {"unrelated": b""})
    status, message, _ = download(tmp_path / "project", mirror, source="mnist", validation=100)
    assert status == 2
    assert f"TURNCOAT_MIRROR={mirror} does not hold it" in message


@pytest.mark.fault(20, "digits without network", "made")
def test_20_digits_need_no_network(tmp_path: Path) -> None:
    status, message, _ = download(tmp_path / "project", source="digits", train=400, validation=400, test=997)
    assert status == 0, message
    assert [len(part) for part in load(tmp_path / "project/data/toy").splits.values()] == [400, 400, 997]


# --------------------------------------------------------------------------- fault 21: labels, empty splits, overlap


def _toy_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **replaced: np.ndarray) -> None:
    """Put a tiny MNIST, with some of its files replaced, where `prepare` finds it."""
    contents = mnist(np.random.default_rng(0))
    for name, array in replaced.items():
        kind = "idx3" if name.endswith("images") else "idx1"
        contents[f"MNIST/raw/{name.replace('_', '-')}-{kind}-ubyte.gz"] = idx(array)
    monkeypatch.setitem(sources.FILES, "mnist", tuple(raw_file(path, content) for path, content in contents.items()))
    monkeypatch.setenv("TURNCOAT_MIRROR", str(put(tmp_path / "mirror", contents)))


@pytest.mark.fault(21, "labels 17 and 12 of 0...9", "stops, with counts")
def test_21_labels_out_of_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _toy_mnist(tmp_path, monkeypatch, t10k_labels=np.array([17, 12] + [*range(10)] + [0] * 8))
    with pytest.raises(TurncoatError, match=r"toy: 2 of 20 test labels lie outside 0...9 \(smallest 0, largest 17\)"):
        prepare("toy", DataSettings(source="mnist", validation=10), tmp_path / "cache")


@pytest.mark.fault(21, "test images that are training images", "stops, with counts")
def test_21_test_images_that_are_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28))  # as in the toy's training file
    _toy_mnist(tmp_path, monkeypatch, t10k_images=images[:20])
    with pytest.raises(
        TurncoatError, match=r"toy: \d+ identical images in train/test \(train 30, validation 10, test 20"
    ):
        prepare("toy", DataSettings(source="mnist", validation=10), tmp_path / "cache")


@pytest.mark.fault(21, "empty test and validation splits", "stops, with counts or the field")
def test_21_an_empty_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    full, empty = (Split(rng.integers(0, 256, (n, 1, 4, 4), dtype=np.uint8), np.arange(n) % 2) for n in (10, 0))
    with pytest.raises(TurncoatError, match=r"toy: the test split is empty \(train 10, validation 10, test 0\)"):
        assemble("toy", "mnist", ("a", "b"), (full, full, empty), {})
    status, message, _ = download(tmp_path / "project", source="digits", train=400, validation=0, test=997)
    assert status == 2
    assert "datasets.toy.data.validation" in message
    assert not (tmp_path / "project/data").exists()


@pytest.mark.fault(21, "a class without training images", "stops, names it")
def test_21_a_class_without_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _toy_mnist(tmp_path, monkeypatch, train_labels=np.arange(40) % 9)
    with pytest.raises(TurncoatError, match="toy: no training image of 9 - nine"):
        prepare("toy", DataSettings(source="mnist", validation=10), tmp_path / "cache")


@pytest.mark.fault(21, "splits larger than the data set", "stops, names the field")
def test_21_splits_larger_than_the_data_set_name_the_field(tmp_path: Path) -> None:
    status, message, _ = download(tmp_path / "project", source="digits", train=400, validation=800, test=997)
    assert status == 2
    assert "datasets.toy.data.train: 400 images asked for, but only 0 are left" in message
    assert not (tmp_path / "project/data").exists()
