"""The kit for a lent GPU: images in halves, epochs from speeds, parcels within limits, and a rehearsal."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lease import clock, images, parcels, recipe
from turncoat import data
from turncoat.data.store import SPLITS, Dataset, Split
from turncoat.errors import TurncoatError
from turncoat.files import read_json, write_json
from turncoat.reading import read_yaml
from turncoat.settings import load

ROOT = Path(__file__).parents[1]


def made(folder: Path, channels: int, sizes: tuple[int, int, int] = (1203, 7, 500)) -> Dataset:
    random = np.random.default_rng(channels)
    splits = [
        Split(random.integers(0, 256, (n, channels, 6, 8), dtype=np.uint8), random.integers(0, 3, n)) for n in sizes
    ]
    dataset = Dataset("toy", "folder", ("a", "b", "c"), (0.5,) * channels, (0.2,) * channels, *splits)
    data.save(dataset, folder)
    return dataset


@pytest.mark.parametrize("channels", [1, 3])
def test_halves_give_the_data_set_back(tmp_path: Path, channels: int) -> None:
    dataset = made(tmp_path / "toy", channels)
    sizes = images.pack(tmp_path / "toy", tmp_path / "travels")
    on_disk = [
        sum(f.stat().st_size for f in (tmp_path / f"travels/half-{half}").rglob("*") if f.is_file()) for half in (1, 2)
    ]
    assert sizes == on_disk
    again = images.both(tmp_path / "travels", tmp_path / "again")
    for split in SPLITS:
        for kind in ("images", "labels"):
            assert np.array_equal(getattr(again.splits[split], kind), getattr(dataset.splits[split], kind))
    first = images.first(tmp_path / "travels", tmp_path / "first")
    assert np.array_equal(first.train.images, dataset.train.images[::2])
    assert len(data.load(tmp_path / "first").test) == 250


def test_a_half_that_did_not_travel_or_is_damaged_is_named(tmp_path: Path) -> None:
    made(tmp_path / "toy", 3)
    images.pack(tmp_path / "toy", tmp_path / "travels")
    strip = images.strip(np.zeros((203, 3, 6, 8), np.uint8))
    strip.save(tmp_path / "travels/half-2/train/001.webp", lossless=True)
    with pytest.raises((TurncoatError, ValueError)):
        images.both(tmp_path / "travels", tmp_path / "again")
    (tmp_path / "travels/half-2/shape.json").unlink()
    with pytest.raises(TurncoatError, match="it travels with call 2"):
        images.both(tmp_path / "travels", tmp_path / "again")


@given(st.binary(max_size=400), st.integers(1, 90))
def test_parts_are_within_the_limit_and_join(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, most: int
) -> None:
    folder = tmp_path_factory.mktemp("parcels")
    (folder / "out").mkdir()
    (folder / "weights.tar").write_bytes(content)
    made = parcels.cut(folder / "weights.tar", folder / "out", most)
    assert len(made) == parcels.parts(len(content), most)
    assert all(path.stat().st_size <= most for path in made)
    parcels.joined([folder / "out"], folder / "joined")
    assert (folder / "joined/weights.tar").read_bytes() == content


def test_a_missing_part_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tar.00").write_bytes(b"x")
    (tmp_path / "a.tar.02").write_bytes(b"x")
    with pytest.raises(TurncoatError, match=r"a\.tar: parts \[0, 2\] are here"):
        parcels.joined([tmp_path], tmp_path / "joined")


def test_weights_travel_in_half_of_their_bytes_and_keep_what_they_say(tmp_path: Path) -> None:
    tensors = {"weight": torch.randn(4, 3), "count": torch.tensor([3])}
    save_file(tensors, tmp_path / "w.safetensors", {"about": "this"})
    small = parcels.cast(tmp_path / "w.safetensors", tmp_path / "half/w.safetensors", torch.float16)
    assert load_file(small)["weight"].dtype == torch.float16
    back = load_file(parcels.cast(small, small, torch.float32))
    assert torch.equal(back["weight"], tensors["weight"].half().float())
    assert torch.equal(back["count"], tensors["count"])


@pytest.mark.parametrize("scale", ["full", "tiny"])
@pytest.mark.parametrize("first", [True, False])
def test_its_params_are_a_study(tmp_path: Path, scale: str, first: bool) -> None:
    made = recipe.params(scale, ROOT / "params.yaml", 4, {"precision": "bfloat16", "compile": False}, first)
    recipe.write(made, tmp_path / "params.yaml")
    settings = load(tmp_path / "params.yaml")
    plan = recipe.plan_of(scale)
    assert settings.study.datasets == [plan["dataset"]]
    assert settings.study.arms == (plan["arms"][:1] if first else plan["arms"])
    entry = settings.datasets[plan["dataset"]]
    assert (entry.training.epochs, entry.finetuning.epochs) == (4 * plan["baseline"], 4)
    attacks = settings.suites["lease"].attacks
    assert attacks["autoattack"]["precision"] == "bfloat16"
    assert ("autoattack-float32" in attacks) == first
    assert settings.compute.precision == "bfloat16"


def measured(each: dict[str, float], evaluation: float) -> dict[str, Any]:
    return {"each": each, "evaluation": evaluation}


def test_epochs_are_what_the_time_allows() -> None:
    each = {"pgd": 1e-4, "mart": 1e-4, "trades": 1e-4, "standard": 2e-5}
    found = recipe.epochs("full", measured(each, 20), 50_000, 420)
    plan = recipe.plan_of("full")
    seconds = 50_000 * (sum(each.values()) + plan["baseline"] * each["standard"])
    assert found * seconds + 80 <= recipe.SHARE * 420 < (found + 1) * seconds + 80
    assert recipe.epochs("full", measured(each, 20), 50_000, 60) == 1  # the arms that do not come to their end wait
    assert recipe.epochs("full", measured(each, 0), 50, 4000) == recipe.MOST
    assert recipe.epochs("full", measured({"pgd": 1e-4}, 20), 50_000, 420) < found  # others are taken to be as slow


def test_speeds_come_from_the_cell_and_the_benchmark(tmp_path: Path) -> None:
    with pytest.raises(TurncoatError, match="call one finished no cell"):
        recipe.speeds(tmp_path, None, "tiny")
    write_json(tmp_path / "reports/times/digits/pgd/0.json", {"seconds": {"training": 2.0, "evaluation": 9.0}})
    write_json(tmp_path / "data/digits/dataset.json", {"counts": {"train": {"images": 200}}})
    alone = recipe.speeds(tmp_path, tmp_path / "bench.json", "tiny")
    assert (alone["each"], alone["evaluation"]) == ({"pgd": 0.01}, 12.0)
    assert alone["compute"] == {"precision": "auto", "compile": "auto"}
    steps = {"pgd": 4.0, "standard": 1.0, "pgd, bfloat16": 2.0, "pgd, compiled": 3.0}
    runs = {name: [{"seconds": seconds, "images": 100, "utilisation": 0.2}] for name, seconds in steps.items()}
    write_json(tmp_path / "bench.json", {"attacks": {"training step of each arm": runs}})
    found = recipe.speeds(tmp_path, tmp_path / "bench.json", "tiny")
    assert found["each"]["standard"] == pytest.approx(0.0025)
    assert found["compute"] == {"precision": "bfloat16", "compile": False}
    assert {row["step"] for row in found["table"]} == set(steps)


def test_the_clock_keeps_a_reserve() -> None:
    ticking = clock.Clock(2.0)
    assert 79 < ticking.left <= 80
    assert clock.Clock(0.5).left < 0


@pytest.mark.slow
def test_the_rehearsal_ends_in_a_page(tmp_path: Path) -> None:
    """The two calls with the tiny study, in a copy of the code; the second one may be cut at its limit."""
    for name in ("lease", "stages", "turncoat", "benchmarks", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("params.yaml", "dvc.yaml", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())

    def call(*words: str) -> str:
        command = [sys.executable, "-m", "lease", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("pack", "--scale", "tiny")
    for name, minutes in (("first", 4.0), ("second", 4.0)):
        call(name, "--scale", "tiny", "--minutes", str(minutes), "--out", f"out-{name}", "--file-size", "0.05")
        log = read_json(tmp_path / f"out-{name}/log.json")
        assert log["steps"][-1]["what"] == "ended"
        assert log["steps"][-1]["second"] <= 60 * minutes
        files = list((tmp_path / f"out-{name}").iterdir())
        assert len(files) <= 8
    said = call("join", "out-second")
    page = tmp_path / said.strip().splitlines()[-1]
    assert 'id="cell-digits-pgd"' in page.read_text()
    assert read_yaml(page.parents[1] / "params.yaml")["study"]["suite"] == "lease"
