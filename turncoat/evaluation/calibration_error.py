"""Expected calibration error: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_], bins: int = 15) -> dict[str, Any]:
    """ECE over bins of equal width, with what a reliability diagram needs.

    Args:
        confidence: (n,) probability of the predicted class. right: (n,) whether it was the label.
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = np.maximum(count, 1)
    mean_confidence = np.bincount(place, weights=confidence.astype(float), minlength=bins) / filled
    accuracy = np.bincount(place, weights=right.astype(float), minlength=bins) / filled
    return {
        "ece": round(float((count * np.abs(accuracy - mean_confidence)).sum() / max(len(right), 1)), 6),
        "bins": bins,
        "confidence": [round(float(value), 6) for value in mean_confidence],
        "accuracy": [round(float(value), 6) for value in accuracy],
        "count": [int(value) for value in count],
    }
