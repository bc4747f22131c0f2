"""What a calibrator does to the confidence, against a count by hand."""

import numpy as np
import pytest
import torch

from tests.methods.small import CLASSES, images_of, network
from tests.papers.small import material
from turncoat.attacks import SHIFTS
from turncoat.models.calibrator import Calibrated
from turncoat.papers.reverse.analysis import analyse, before_and_after
from turncoat.randomness import generator


def test_confidence_before_and_after_a_calibrator():
    """Against a count image by image, and in two batches as in one."""
    pipeline = Calibrated(network(steps=2), 0.2)
    with torch.no_grad():
        pipeline.generator.weight.normal_(generator=generator("calibrator"))
    pipeline.eval()
    images, labels = images_of(9), torch.arange(9) % CLASSES
    shares, table = before_and_after(pipeline, images, labels, bins=5, batch_size=4)
    expected, rose = np.zeros((5, 5), int), 0
    for image, label in zip(images, labels.tolist(), strict=True):
        with torch.no_grad():
            before = pipeline.classifier(image[None]).softmax(1)[0, label].item()
            after = pipeline(image[None]).softmax(1)[0, label].item()
        expected[min(int(before * 5), 4), min(int(after * 5), 4)] += 1
        rose += after > before + 0.01
    np.testing.assert_array_equal(table, expected)
    assert shares["rose"] == pytest.approx(rose / 9, abs=1e-6)
    right = (pipeline(images).argmax(1) == labels).float().mean().item()
    assert shares["after"] == pytest.approx(right, abs=1e-6)
    shares, table = before_and_after(Calibrated(network(), 0.0).eval(), images, labels)
    assert shares["rose"] == shares["fell"] == 0
    assert table.sum() == np.trace(table) == 9


def test_the_analysis_of_calibrators_changes_images_by_what_the_pipeline_changes():
    pipeline = Calibrated(network(), 0.2)
    with torch.no_grad():
        pipeline.generator.weight.normal_(generator=generator("calibrator"))
    told, arrays = analyse(material(reverse=({"method": "reverse"}, pipeline.eval())))
    assert told["scenes"] == ["clean", *SHIFTS]
    assert list(told["arms"]["reverse"]) == told["scenes"]
    assert arrays["confidence-reverse"].sum((1, 2)).tolist() == [24] * len(told["scenes"])
    shown = torch.from_numpy(arrays["images"])
    with torch.no_grad():
        after = pipeline(shown).softmax(1)
    np.testing.assert_allclose(arrays["answers-reverse"][1], after, atol=1e-6)
    np.testing.assert_allclose(pipeline.calibrate(shown).detach() - shown, arrays["changes-reverse"], atol=1e-6)
