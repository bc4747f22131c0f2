"""Evaluation of masks and boxes: measures, an attack that is doubted, resuming, the command line."""

import subprocess
import sys

import pytest
import torch

from tests.dense.small import TASKS, THREAT, network, scenes, split_of
from tests.stages.test_study import ENVIRONMENT
from turncoat import models
from turncoat.data import save
from turncoat.errors import TurncoatError
from turncoat.evaluation.dense import DenseAttack, evaluate_dense, plan
from turncoat.evaluation.dense_recording import dense_measurements, write_dense_examples
from turncoat.evaluation.journal import Journal
from turncoat.files import read_json, sha256
from turncoat.overlap import PRIMARY
from turncoat.reporting.record import Checkpoint
from turncoat.settings import SuiteSettings, load

PGD = {"pgd": DenseAttack(attack="pgd", steps=5)}


def evaluated(task, net=None, attacks=PGD, **options):
    test, classes = split_of(task, "test"), len(scenes(task).classes)
    net = network(task) if net is None else net
    return evaluate_dense(net, test.floats(), test.labels, task, classes, THREAT, attacks, batch_size=5, **options)


@pytest.mark.parametrize("task", TASKS)
def test_what_is_measured_and_kept(task, tmp_path):
    result = evaluated(task)
    assert list(result.counts) == ["clean", "pgd"]
    assert (result.losses["pgd"] > result.losses["clean"]).all()
    found = dense_measurements(result, scenes(task).classes)
    read = Checkpoint.model_validate(found)
    assert read.count("clean").accuracy == result.measures("clean")[PRIMARY[task]]
    assert read.count("pgd").accuracy == result.measures("pgd")[PRIMARY[task]]
    other = {"segmentation": "pixel-accuracy", "detection": "ap50"}[task]
    assert read.count(f"{other}-pgd").accuracy == result.measures("pgd")[other]
    assert list(read.by_class["clean"]) == list(scenes(task).classes)
    first, second = (write_dense_examples(tmp_path / name, evaluated(task)) for name in ("a.npz", "b.npz"))
    assert first["sha256"] == second["sha256"] == sha256(tmp_path / "a.npz")


@pytest.mark.parametrize("task", TASKS)
def test_a_cut_evaluation_goes_on_to_the_same_result(task, tmp_path):
    whole = evaluated(task, journal=Journal(tmp_path / "whole"))
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    assert len(lines) == 6  # three batches clean, three attacked
    (tmp_path / "cut").write_bytes(b"".join(lines[:4]) + lines[4][:20])
    again = evaluated(task, journal=Journal(tmp_path / "cut"))
    kinds = scenes(task).classes
    assert dense_measurements(again, kinds) == dense_measurements(whole, kinds)
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()


class Rounded(torch.nn.Module):
    """A network that no gradient comes through."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.found = inner, inner.found

    def forward(self, images):
        return self.inner((images * 255).round() / 255)

    def losses(self, outputs, targets):
        return self.inner.losses(outputs, targets)


@pytest.mark.parametrize("task", TASKS)
def test_an_attack_without_gradients_is_doubted(task):
    names = {flag.name: flag.blocks for flag in evaluated(task, Rounded(network(task))).flags}
    assert names["zero-gradient"]
    assert not evaluated(task).flags or {flag.name for flag in evaluated(task).flags} <= {"more-steps"}


def test_images_without_anything_to_find_are_no_reason_for_doubt():
    """An SSD has no loss on them: it takes its negatives by the number of boxes."""
    test, side = split_of("detection", "test", side=64), 64
    targets = test.labels.clone()
    targets[:4] = -1.0
    net = network("detection", "ssdlite320_mobilenet_v3_large", side=side)
    result = evaluate_dense(net, test.floats(), targets, "detection", 10, THREAT, PGD, batch_size=6)
    assert (result.losses["clean"][:4] == 0).all()
    assert "zero-gradient" not in {flag.name for flag in result.flags}


def test_a_network_that_is_not_finite_is_refused():
    net = network("segmentation")
    with torch.no_grad():
        next(net.parameters()).fill_(torch.nan)
    with pytest.raises(TurncoatError, match="its loss is not finite"):
        evaluated("segmentation", net)


@pytest.mark.parametrize(
    ("suite", "told"),
    [
        (
            {"attacks": {"a": {"attack": "autoattack"}}},
            "suites.s.attacks.a.attack: autoattack needs one label an image",
        ),
        ({"attacks": {"a": {"attack": "pgd", "step": 3}}}, "suites.s.attacks.a.step; did you mean steps"),
        ({"attacks": {"a": {"attack": "pgd"}}, "radii": [1.0]}, "suites.s.radii: not for segmentation and detection"),
    ],
)
def test_a_suite_with_what_needs_one_label_an_image_is_refused(suite, told):
    with pytest.raises(TurncoatError, match=told):
        plan("s", SuiteSettings(**suite))
    assert plan("dense", load("tests/params.yaml").suites["dense"])["pgd-20"].steps == 20


@pytest.mark.parametrize("task", TASKS)
def test_the_command_line_takes_its_weights(task, tmp_path):
    name = {"segmentation": "scenes-masks", "detection": "scenes-boxes"}[task]
    save(scenes(task), tmp_path / name)
    models.save(tmp_path / "net.safetensors", network(task))
    command = [sys.executable, "-m", "turncoat.evaluation", "--model", str(tmp_path / "net.safetensors")]
    options = ["--data", str(tmp_path), "--dataset", name, "--json", str(tmp_path / "out.json"), "--images", "6"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "pgd-20" in done.stdout
    assert read_json(tmp_path / "out.json")["clean"]["n"] == 6
    for more, told in (
        (["--data", "digits"], "a data set of segmentation or detection is wanted; there are"),
        (["--data", str(tmp_path), "--dataset", name, "--save", "x.npz"], "--save: not for a network for segmentation"),
    ):
        refused = subprocess.run([*command, *more], capture_output=True, text=True, env=ENVIRONMENT)
        assert refused.returncode == 2
        assert told in refused.stderr
