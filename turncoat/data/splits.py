"""Stratified splits: every class has in each split the share it has in the whole, and one seed fixes who goes where.

The whole set is put into one random order in which the classes come round evenly, and the splits are cut from it: test
first, then validation, then train.  So a study with fewer training images is tested on the same images as one with
more, and the first n images of a split are themselves a stratified sample.  NumPy's `RandomState` draws, because its
streams are promised never to change.
"""

import numpy as np
from numpy.typing import NDArray

from turncoat.errors import TurncoatError
from turncoat.randomness import seed_of

Indices = NDArray[np.int64]


def stratified_order(labels: NDArray[np.int64], seed: int) -> Indices:
    """A random order of the indices of `labels` (n,) of which every stretch has the classes in their shares.

    The k-th of the n_c images of a class, drawn at random, stands at the fraction (k + u_c) / n_c of the way; the
    offsets u_c are spread over (0, 1), so that the classes take turns.
    """
    random = np.random.RandomState(seed_of("split", seed) % 2**32)
    shuffled = random.permutation(len(labels))
    classes, inverse, sizes = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    offsets = (random.permutation(len(classes)) + 0.5) / len(classes)
    ranks = np.empty(len(labels), dtype=np.int64)
    for number, size in enumerate(sizes):
        ranks[inverse == number] = np.arange(size)
    order: Indices = shuffled[np.argsort((ranks + offsets[inverse]) / sizes[inverse], kind="stable")]
    return order


def split(
    labels: NDArray[np.int64],
    official_test: NDArray[np.int64] | None,
    sizes: tuple[int | None, int | None, int | None],
    seed: int,
    fields: tuple[str, str, str] = ("train", "validation", "test"),
    own_validation: NDArray[np.int64] | None = None,
) -> tuple[Indices, Indices, Indices]:
    """Split a data set into train, validation and test.

    Args:
        labels: (n,) labels of the set that train and validation come from, and test too where there is no official one.
        official_test: (m,) labels of the official test set, which stays test, or None.
        sizes: train (None: all that remain), validation and test (None: the whole set of its own, in its order).
        seed: fixes the draw.
        fields: the settings that the sizes come from, for messages.
        own_validation: (v,) labels of a validation set that the data brings along, or None: it comes out of `labels`.

    Returns:
        Indices of train (into `labels`), validation (into `own_validation`, or into `labels`) and test (into
        `official_test`, or into `labels`).

    Raises:
        TurncoatError: the sizes do not fit the data.
    """
    order = stratified_order(labels, seed)
    classes = len(np.unique(labels))
    cut = {}
    for part, own in ((2, official_test), (1, own_validation)):
        if own is not None:
            whole = np.arange(len(own)) if sizes[part] is None else stratified_order(own, seed)
            cut[part], _ = _cut(whole, sizes[part], classes, fields[part])
        elif sizes[part] is None:
            kind = "official test" if part == 2 else "validation"
            raise TurncoatError(f"{fields[part]}: this data set has no {kind} set; say how many images to hold out")
        else:
            cut[part], order = _cut(order, sizes[part], classes, fields[part])
    train, _ = _cut(order, sizes[0], classes, fields[0])
    return train, cut[1], cut[2]


def _cut(order: Indices, size: int | None, classes: int, field: str) -> tuple[Indices, Indices]:
    """The first `size` indices (None: all), and the rest."""
    wanted = len(order) if size is None else size
    if wanted > len(order):
        raise TurncoatError(f"{field}: {wanted:,} images asked for, but only {len(order):,} are left to draw from")
    if wanted < classes:
        raise TurncoatError(f"{field}: {wanted} images cannot hold all {classes} classes")
    return order[:wanted], order[wanted:]
