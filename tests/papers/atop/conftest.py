"""The network and the images of the evaluation's tests, for those of purified networks."""

from tests.evaluation.conftest import images, labels, network

__all__ = ["images", "labels", "network"]
