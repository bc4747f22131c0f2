"""The ground floor: files whole or absent, generators that depend on their key alone."""

import json
import os

import pytest
import torch

from turncoat import files
from turncoat.errors import TurncoatError
from turncoat.randomness import generator, seed_of


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "x.txt"
    files.write_atomic(path, "one")
    files.write_atomic(path, b"two")
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["x.txt"]


@pytest.mark.fault(25, "a write that fails at its last step", "the old file stays, no temporary left")
def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    files.write_atomic(path, "old")

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(TurncoatError, match=r"x\.txt: could not be written .* bytes needed, \d+ free"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_is_no_number(tmp_path, value):
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(tmp_path / "x.json", {"x": value})
    assert not list(tmp_path.iterdir())


def test_read_json_names_the_file_and_the_remedy(tmp_path):
    (tmp_path / "x.json").write_text("{")
    for name in ("x.json", "y.json"):
        with pytest.raises(TurncoatError, match=rf"{name}.*dvc repro"):
            files.read_json(tmp_path / name)
    files.write_json(tmp_path / "x.json", {"a": [1]})
    assert files.read_json(tmp_path / "x.json") == json.loads('{"a": [1]}')


@pytest.mark.fault(18, "generators of seed 0 and of others", "streams of their own")
def test_counted_generators_depend_on_their_key_alone():
    first = torch.rand(3, generator=generator(0, "batch", 1, 2))
    torch.rand(100)
    assert torch.equal(first, torch.rand(3, generator=generator(0, "batch", 1, 2)))
    keys = [(0,), (1,), ("0",), (0, 1), (1, 0), (0, "a"), (0, "a", 1), (1, 1), (11,)]
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert all(0 <= seed_of(*key) < 2**63 for key in keys)
