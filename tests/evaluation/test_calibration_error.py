"""The expected calibration error, against its definition and against networks whose calibration is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from turncoat.evaluation.calibration_error import calibration_error

Predictions = st.integers(1, 200).flatmap(
    lambda n: st.tuples(arrays.arrays(np.float32, n, elements=st.floats(0, 1, width=32)), arrays.arrays(np.bool_, n))
)


@given(Predictions, st.integers(1, 30))
def test_matches_its_definition(predictions: tuple, bins: int) -> None:
    confidence, right = predictions
    found = calibration_error(confidence, right, bins)
    by_hand = 0.0
    for k in range(bins):  # bins (k/b, (k+1)/b], the first closed on both sides
        inside = (np.ceil(confidence * bins).clip(1, bins) - 1) == k
        if inside.any():
            by_hand += inside.mean() * abs(right[inside].mean() - confidence[inside].astype(float).mean())
    assert found["ece"] == pytest.approx(by_hand, abs=1e-5)
    assert 0 <= found["ece"] <= 1
    assert sum(found["count"]) == len(right)
    assert len(found["confidence"]) == len(found["accuracy"]) == bins


def test_a_calibrated_network_has_none_and_a_boaster_all() -> None:
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0.5, 1, 50_000).astype(np.float32)
    assert calibration_error(confidence, draw.uniform(size=50_000) < confidence)["ece"] < 0.01
    assert calibration_error(np.ones(10, np.float32), np.zeros(10, bool))["ece"] == 1
    assert calibration_error(np.ones(10, np.float32), np.ones(10, bool))["ece"] == 0
