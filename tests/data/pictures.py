"""Builders of images of one's own: files of any kind, and folders of them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.tiny import put


def smooth(seed: int, height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    """(height, width[, channels]) uint8 that JPEG and WebP keep nearly as it is: a ramp of its own colours."""
    rng = np.random.default_rng(seed)
    first, last = rng.integers(0, 256, (2, channels))
    ramp = np.linspace(0, 1, width)[None, :, None] * np.ones((height, 1, 1))
    image = np.rint(first + (last - first) * ramp).astype(np.uint8)
    return image[:, :, 0] if channels == 1 else image


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    whole = image if isinstance(image, Image.Image) else Image.fromarray(image)
    whole.save(buffer, kind, **options)
    return buffer.getvalue()


def cats_and_dogs(root: Path, each: int = 12, **shape: int) -> Path:
    """A folder with `each` PNGs a class, cat and dog, no two alike; 48×64 unless said otherwise."""
    files = {
        f"{name}/{index:03}.png": encoded(smooth(1000 * number + index, **shape))
        for number, name in enumerate(("cat", "dog"))
        for index in range(each)
    }
    return put(root, files)
