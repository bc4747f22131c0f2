"""Networks, and weights files that can be used alone: a file's metadata rebuilds the module that it deploys."""

from turncoat.models.classifiers import NETWORKS, Classifier
from turncoat.models.foreign import source_of
from turncoat.models.given import given_classifier
from turncoat.models.weights import build, dense_network, factories, load, parameter_count, save, tensor_digest

OF_TASK = {
    "classification": Classifier,
    "segmentation": dense_network("segmentation"),
    "detection": dense_network("detection"),
}

__all__ = [
    "NETWORKS",
    "OF_TASK",
    "Classifier",
    "build",
    "factories",
    "given_classifier",
    "load",
    "parameter_count",
    "save",
    "source_of",
    "tensor_digest",
]
