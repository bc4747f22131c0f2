"""Evaluation: one honest suite for every deployed network, per-example results, flags, records."""

from turncoat.evaluation.evaluate import Evaluation, evaluate
from turncoat.evaluation.suite import Suite, build_suite

__all__ = ["Evaluation", "Suite", "build_suite", "evaluate"]
