"""The settings that the project ships with: what tests run on, whatever somebody has made of params.yaml since."""

from pathlib import Path

DEFAULTS = Path(__file__).parent / "params.yaml"  # a copy; tests/conftest.py says where the two differ
