"""RAT's analysis on networks simple enough that the answer is known beforehand."""

import numpy as np
import torch

from tests.methods.small import CLASSES, TASK, images_of, network
from tests.papers.small import material
from turncoat.attacks import Threat, fgsm
from turncoat.methods.universal import reached
from turncoat.papers.rat.analysis import analyse, fgsm_curves


def test_fgsm_loses_accuracy_with_its_radius_and_transfers_less():
    net, source = network(seed=0), network(seed=1)
    images = images_of(40)
    with torch.no_grad():
        labels = net.eval()(images).argmax(1)
    curves = fgsm_curves(net, source.eval(), images, labels, TASK.threat, [0.0, 0.5, 2.0])
    assert curves["white-box"][0] == curves["transferred"][0] == 40
    assert curves["white-box"][2] < curves["white-box"][1] <= 40
    assert curves["white-box"][2] < curves["transferred"][2]
    attacked = fgsm(source, images, labels, Threat("linf", 2 * TASK.threat.epsilon))
    assert curves["transferred"][2] == int((net(attacked).argmax(1) == labels).sum())
    assert fgsm_curves(net, net, images, labels, TASK.threat, [2.0])["transferred"] == curves["white-box"][2:]


def test_the_analysis_of_rat_meets_old_and_new_perturbations():
    arm = network(seed=3).eval()
    given = material(
        rat_clean=({"method": "rat", "perturbation": "none"}, arm),
        rat=({"method": "rat", "perturbation": "targeted"}, arm),
    )
    told, arrays = analyse(given)
    assert (told["arm"], told["form"], told["of_class"]) == ("rat", "sgd", [6, 6, 6, 6])
    assert list(told["fgsm"]) == ["rat-clean", "rat"]
    assert told["radii"][-1] * TASK.threat.epsilon <= 1
    for target in range(CLASSES):
        rows = reached(arm, given.test, given.universal["sgd"][target], target, CLASSES)
        assert arrays["stored"][:, target].tolist() == rows["from"]
        rows = reached(arm, given.test, torch.from_numpy(arrays["perturbations"][target]), target, CLASSES)
        assert arrays["new"][:, target].tolist() == rows["from"]
    assert np.abs(arrays["perturbations"]).max() <= TASK.threat.epsilon + 1e-6
    told, arrays = analyse(material(rat_clean=({"method": "rat", "perturbation": "none"}, arm)))
    assert "arm" not in told
    assert not arrays
