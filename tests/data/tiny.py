"""Builders of the data tests: tiny data sets in the true formats, and a real HTTP server to fetch them from."""

import gzip
import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from turncoat.data.sources import RawFile


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def raw_file(path: str, content: bytes, *urls: str, unpacked: dict[str, str] | None = None) -> RawFile:
    """The `RawFile` under which `content` would be published."""
    return RawFile(path, md5(content), len(content), urls, unpacked or {})


def idx(array: np.ndarray) -> bytes:
    """Gzipped IDX, the format of MNIST: magic number with type (8: uint8) and rank, big-endian sizes, bytes."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


def tar(files: dict[str, bytes]) -> bytes:
    """A gzipped tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def cifar_batch(images: np.ndarray, labels: list[int], key: str = "labels") -> bytes:
    """A pickled batch in CIFAR's form: images (n, 3, 32, 32) as rows of 3072."""
    return pickle.dumps({"data": images.reshape(len(images), 3072), key: labels}, protocol=2)


def jpeg(rng: np.random.Generator, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@contextmanager
def serve(pages: dict[str, tuple[int, bytes]]) -> Iterator[tuple[str, list[str]]]:
    """A real HTTP server: `{"/name": (status, body)}` -> its address, and the list of what it was asked for.

    A status of 206 sends the body under a promise of 1,000 bytes more and hangs up: a broken transfer.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, body = pages.get(self.path, (404, b"not here"))
            self.send_response(200 if status == 206 else status)
            self.send_header("Content-Length", str(len(body) + (1000 if status == 206 else 0)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def mnist(rng: np.random.Generator) -> dict[str, bytes]:
    """Forty training and twenty test images of 28×28, as MNIST's four files in torchvision's layout."""
    return {
        "MNIST/raw/train-images-idx3-ubyte.gz": idx(rng.integers(0, 256, (40, 28, 28))),
        "MNIST/raw/train-labels-idx1-ubyte.gz": idx(np.arange(40) % 10),
        "MNIST/raw/t10k-images-idx3-ubyte.gz": idx(rng.integers(0, 256, (20, 28, 28))),
        "MNIST/raw/t10k-labels-idx1-ubyte.gz": idx(np.arange(20) % 10),
    }


def put(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files below `folder`."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder
