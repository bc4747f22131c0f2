"""Scenes of digits, for segmentation and detection without a download: masks and boxes are known exactly.

scikit-learn's 8×8 digits, enlarged, of different size and brightness, some partly behind others, on a noisy canvas with
strokes that are no digits. Everything comes from the seed; a digit's own image is in scenes of one split alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from turncoat.data.store import Split
from turncoat.data.targets import Task, packed
from turncoat.randomness import seed_of

SIDE = 40  # pixels
DIGITS = (2, 4)  # in a scene, at least and at most
SCALE = (11, 18)  # sides of a digit in pixels, the second excluded; in a scene of SIDE pixels
INK = 0.35  # share of full brightness from which a pixel is the digit's
SEEN = 0.6  # share of a digit that those before it must leave
SHARES = (0.6, 0.1)  # of all digits, those that training and validation scenes show; the test scenes show the rest
TRIES = 40  # for a place of a digit; a scene without room for it has one less


@dataclass(frozen=True)
class Scene:
    """One scene: `image` (1, h, w) uint8, `mask` (h, w) uint8, 0 the background, `boxes` (m, 5) with classes from 0."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    boxes: NDArray[np.float32]


def classes(task: Task) -> tuple[str, ...]:
    """The background is a class of pixels, and no class of boxes."""
    digits = tuple(str(digit) for digit in range(10))
    return ("background", *digits) if task == "segmentation" else digits


def made(task: Task, counts: tuple[int, int, int], seed: int, side: int = SIDE) -> tuple[Split, Split, Split]:
    """Train, validation and test: so many scenes of `side`×`side` pixels each.

    A split's first scenes are the same however many there are of it and of the others.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.RandomState(seed_of("scenes", seed) % 2**32).permutation(len(digits.target))
    places = (np.cumsum(SHARES) * len(order)).astype(int)
    splits = []
    for name, count, own in zip(("train", "validation", "test"), counts, np.split(order, places), strict=True):
        draw = np.random.RandomState(seed_of("scenes", seed, name) % 2**32)
        scenes = [scene(digits.images[own] / 16, digits.target[own], draw, side) for _ in range(count)]
        targets = [one.mask for one in scenes] if task == "segmentation" else [one.boxes for one in scenes]
        labels = np.stack(targets) if task == "segmentation" else packed(targets)
        splits.append(Split(np.stack([one.image for one in scenes]), labels))
    return splits[0], splits[1], splits[2]


def scene(
    digits: NDArray[np.floating], labels: NDArray[np.integer], draw: np.random.RandomState, side: int = SIDE
) -> Scene:
    """One scene of some of these digits (n, 8, 8) in [0, 1]; a later digit lies before the earlier ones."""
    canvas = _background(draw, side)
    owner = np.full((side, side), -1)  # which digit a pixel belongs to
    kinds: list[int] = []
    sizes: list[int] = []
    for _ in range(draw.randint(DIGITS[0], DIGITS[1] + 1)):
        which = draw.randint(len(labels))
        height, width = (side * draw.randint(*SCALE) // SIDE for _ in range(2))
        shape = Image.fromarray((digits[which] * 255).astype(np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        ink = np.asarray(shape, dtype=np.float64) / 255
        bright = draw.uniform(0.55, 1.0)
        for _ in range(TRIES):
            top, left = draw.randint(0, side - height + 1), draw.randint(0, side - width + 1)
            after = owner.copy()
            here = after[top : top + height, left : left + width]
            here[ink > INK] = len(kinds)
            if all((after == other).sum() >= SEEN * size for other, size in enumerate(sizes)):
                owner = after
                patch = canvas[top : top + height, left : left + width]
                patch += ink * (bright - patch) * (ink > INK / 2)
                kinds.append(int(labels[which]))
                sizes.append(int((ink > INK).sum()))
                break
    canvas += draw.normal(0, 0.04, canvas.shape)
    mask = np.zeros((side, side), np.uint8)
    boxes = np.zeros((len(kinds), 5), np.float32)
    for place, kind in enumerate(kinds):
        rows, columns = np.nonzero(owner == place)
        mask[rows, columns] = kind + 1
        boxes[place] = kind, columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return Scene(np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)[None], mask, boxes)


def _background(draw: np.random.RandomState, side: int) -> NDArray[np.float64]:
    """Slow shades, and a few strokes, which are of no class."""
    coarse = Image.fromarray((draw.uniform(0, 0.3, (4, 4)) * 255).astype(np.uint8))
    canvas = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    for _ in range(draw.randint(1, 4)):
        start, angle, length = draw.uniform(0, side, 2), draw.uniform(0, 2 * np.pi), draw.uniform(4, side / 3)
        steps = np.arange(0, length, 0.5)[:, None]
        points = (start + steps * [np.sin(angle), np.cos(angle)]).astype(int)
        inside = points[((points >= 0) & (points < side)).all(1)]
        canvas[inside[:, 0], inside[:, 1]] = draw.uniform(0.35, 0.8)
    return canvas
