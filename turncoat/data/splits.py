"""Stratified splits: every class has in each split the share it has in the whole, and one seed fixes who goes where.

The test split is drawn first, then validation, then train, so that a study with fewer training images is tested on the
same images as one with more.
"""

import numpy as np
from numpy.typing import NDArray

from turncoat.errors import TurncoatError
from turncoat.randomness import seed_of

Indices = NDArray[np.int64]


def draw(labels: NDArray[np.int64], pool: Indices, size: int | None, seed: int, field: str) -> tuple[Indices, Indices]:
    """Draw a stratified sample without replacement.

    Args:
        labels: (n,) of the whole set.
        pool: indices to draw from.
        size: how many; None takes the whole pool.
        seed: any integer.
        field: the setting that asked, for messages.

    Returns:
        The drawn indices in random order, and the rest.

    Raises:
        TurncoatError: more asked for than there are, or too few to hold every class.
    """
    from sklearn.model_selection import train_test_split

    classes, wanted = len(np.unique(labels)), len(pool) if size is None else size
    state = seed_of("split", seed) % 2**32
    if wanted > len(pool):
        raise TurncoatError(f"{field}: {wanted:,} images asked for, but only {len(pool):,} are left to draw from")
    if wanted < classes:
        raise TurncoatError(f"{field}: {wanted} images cannot hold all {classes} classes")
    if len(pool) - wanted < classes:  # nothing, or too little for scikit-learn to stratify, would be left over
        order: Indices = np.random.RandomState(state).permutation(pool)
        return order[:wanted], order[wanted:]
    try:
        drawn, rest = train_test_split(pool, train_size=wanted, stratify=labels[pool], random_state=state)
    except ValueError as error:
        raise TurncoatError(f"{field}: {wanted:,} of {len(pool):,} images cannot be stratified ({error})") from error
    return drawn, rest


def split(
    labels: NDArray[np.int64],
    official_test: NDArray[np.int64] | None,
    sizes: tuple[int | None, int, int | None],
    seed: int,
    fields: tuple[str, str, str] = ("train", "validation", "test"),
) -> tuple[Indices, Indices, Indices]:
    """Split a data set into train, validation and test.

    Args:
        labels: (n,) labels of the set that train and validation come from, and test too where there is no official one.
        official_test: (m,) labels of the official test set, which stays test, or None.
        sizes: train (None: all that remain), validation, test (None: the whole official test set, in its order).
        seed: fixes the draw.
        fields: the settings that the sizes come from, for messages.

    Returns:
        Indices of train and validation (into `labels`) and of test (into `official_test`, or into `labels`).

    Raises:
        TurncoatError: the sizes do not fit the data.
    """
    train_size, validation_size, test_size = sizes
    pool: Indices = np.arange(len(labels))
    if official_test is None:
        if test_size is None:
            raise TurncoatError(f"{fields[2]}: this data set has no official test set; say how many images to hold out")
        test, pool = draw(labels, pool, test_size, seed, fields[2])
    elif test_size is None:
        test = np.arange(len(official_test))
    else:
        test, _ = draw(official_test, np.arange(len(official_test)), test_size, seed, fields[2])
    validation, pool = draw(labels, pool, validation_size, seed, fields[1])
    train, _ = draw(labels, pool, train_size, seed, fields[0])
    return train, validation, test
