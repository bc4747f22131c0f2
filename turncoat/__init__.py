"""Turncoat: five papers that turn adversarial examples, re-run side by side under one threat model and one attack suite."""

__version__ = "0.1.0"
