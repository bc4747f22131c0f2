"""Turncoat: five papers that turn adversarial examples, re-run side by side under one honest attack suite."""

__version__ = "0.1.0"
