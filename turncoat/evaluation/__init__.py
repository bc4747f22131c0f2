"""Evaluation: one honest suite for every deployed network, per-example results, flags, records."""

from turncoat.evaluation.evaluate import evaluate
from turncoat.evaluation.results import Evaluation, Flag
from turncoat.evaluation.suite import Suite, build_suite, plan_suite

__all__ = ["Evaluation", "Flag", "Suite", "build_suite", "evaluate", "plan_suite"]
