"""AutoAttack on a network that others trained: what is compared, with a stub where the peer's library would be."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks import given
from turncoat.attacks import Threat

THREAT = Threat("linf", 0.1)


class Sum(nn.Module):
    """Two classes, told apart by whether the pixels' mean is above a half."""

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1) * 20


def images(*means):
    return torch.tensor(means).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()


def stub(monkeypatch, move):
    """A torchattacks whose every attack adds `move` to all pixels; the names and settings of those that were made."""
    made = []

    def attack(name):
        def make(*arguments, **settings):
            made.append((name, settings))
            return lambda pixels, labels: pixels + move

        return make

    names = ("AutoAttack", "MultiAttack", "APGD", "APGDT", "FAB", "Square")
    monkeypatch.setitem(sys.modules, "torchattacks", SimpleNamespace(**{name: attack(name) for name in names}))
    return made


def test_ours_leaves_the_images_that_the_budget_cannot_turn():
    """Class 1 falls where its mean is under 0.6, class 0 where it is over 0.4; one is wrong before any attack."""
    pixels, labels = images(0.55, 0.65, 0.45, 0.3, 0.3), torch.tensor([1, 1, 0, 0, 1])
    assert given.standing(Sum(), pixels, labels, THREAT, "turncoat") == 2


@pytest.mark.parametrize(("move", "left"), [(-0.05, 1), (-0.09, 1), (-5.0, 1), (0.0, 2)])
def test_a_peers_images_are_brought_back_into_the_ball_before_they_count(monkeypatch, move, left):
    stub(monkeypatch, move)
    pixels, labels = images(0.55, 0.65), torch.tensor([1, 1])
    assert given.standing(Sum(), pixels, labels, THREAT, "torchattacks") == left


def test_with_the_papers_steps_the_four_attacks_are_made_of_the_peers_classes(monkeypatch):
    made = stub(monkeypatch, 0.0)
    given.standing(Sum(), images(0.55), torch.tensor([1]), THREAT, "torchattacks-100")
    settings = dict(made)
    assert list(settings) == ["APGD", "APGDT", "FAB", "Square", "MultiAttack"]
    assert [settings[name]["steps"] for name in ("APGD", "APGDT", "FAB")] == [100, 100, 100]
    assert settings["Square"]["n_queries"] == 5000
    assert {settings[name]["eps"] for name in settings if name != "MultiAttack"} == {0.1}


@pytest.mark.parametrize("dataset", ["digits", "nowhere"])
def test_a_data_set_without_a_given_baseline_is_refused_in_a_line(monkeypatch, capsys, dataset):
    monkeypatch.setattr(sys, "argv", ["given", "--by", "turncoat", "--dataset", dataset])
    with pytest.raises(SystemExit):
        given.main()
    assert f"--dataset {dataset}: no data set" in capsys.readouterr().err
