"""Every method for one epoch on a few hundred images of the published data sets, from the mirror; skipped without."""

import os
from pathlib import Path

import pytest
import torch

from tests.defaults import DEFAULTS
from turncoat import models
from turncoat.attacks import Threat
from turncoat.data.batches import resident
from turncoat.data.fetch import in_mirror
from turncoat.data.prepare import prepare
from turncoat.data.sources import raw_files
from turncoat.methods.base import Task
from turncoat.papers.arms import arm_settings, method_class
from turncoat.settings import ComputeSettings, DataSettings, TrainingSettings, load
from turncoat.training import fit, initialised, resolve
from turncoat.training.validation import validator

ARMS = ["pgd", "trades", "mart", "mart-awp", "mart-semi", "advprop", "fast-advprop", "advamd", "advamd-affine", "joint"]
QUICK = TrainingSettings(epochs=2, batch_size=50, lr=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "epsilon"), [("mnist", 0.3), ("fashion_mnist", 0.1), ("cifar10", 8 / 255)])
def test_every_arm_trains_on_published_images(tmp_path, source, epsilon):
    mirror = os.environ.get("TURNCOAT_MIRROR")
    if not mirror or not all(in_mirror(file, source, Path(mirror)) for file in raw_files(source)):
        pytest.skip(f"TURNCOAT_MIRROR names no folder with {source}")
    data = prepare(source, DataSettings(source=source, train=200, validation=100, test=100), tmp_path / "cache")
    compute = resolve(ComputeSettings(device="cpu"))
    threat = Threat("linf", epsilon)
    look = validator(resident(data.validation.images, data.validation.labels, "cpu"), threat, seed=0, steps=2)
    settings = load(DEFAULTS)
    for arm in ARMS:
        network = initialised(0, lambda: models.Classifier("small_cnn", 10, data.shape, data.mean, data.std))
        plan = arm_settings(settings, arm)
        semi = getattr(plan, "semi", None)
        plan = plan.model_copy(update={"semi": semi.model_copy(update={"labeller": QUICK})}) if semi else plan
        method = method_class(plan.method)(plan, Task(threat, 10))
        train = method.prepare(network, resident(data.train.images, data.train.labels, "cpu"), 0)
        outcome = fit(method, train, QUICK.model_copy(update={"epochs": 1}), compute, seed=0, validate=look)
        assert 0 <= outcome.history[-1]["validation_robust"] <= outcome.history[-1]["validation_clean"] <= 1, arm
        assert all(torch.isfinite(value).all() for value in outcome.last.values() if value.is_floating_point()), arm
        deployed = models.build(method.deploy(method.model).spec)
        deployed.load_state_dict(outcome.last)
        assert models.parameter_count(deployed) == models.parameter_count(
            models.Classifier("small_cnn", 10, data.shape, data.mean, data.std)
        )
