"""MART's first experiment: who is chosen, and that only they are treated otherwise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.small import batch_of, gradients, method, network, split_of
from turncoat.errors import TurncoatError
from turncoat.methods import misclassified
from turncoat.methods.adversarial import divergence
from turncoat.methods.base import attack
from turncoat.methods.misclassified import choose
from turncoat.settings import AttackSettings, TrainingSettings

CHOSEN = torch.tensor([True, False, False, True, False, False])
FGSM = AttackSettings(steps=1, step=1.0, start="none")


@pytest.fixture(autouse=True)
def _chosen(monkeypatch):
    """In place of a trained network: one that errs on images 0 and 3 of the batch."""
    monkeypatch.setattr(misclassified, "train_reference", lambda *given: None)
    monkeypatch.setattr(
        misclassified, "predictions", lambda network, images: torch.where(CHOSEN, -1, batch_of().labels)
    )


def made_with(**arm):
    return method("misclassified", split=batch_of(), **({"subset": "misclassified"} | arm))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=4, max_size=40).filter(lambda right: 0 < right.count(False) <= len(right) // 2))
def test_the_subsets_are_disjoint_and_of_one_size(right):
    right = torch.tensor(right)
    wrong, correct = choose(right, "misclassified", 0), choose(right, "correct", 0)
    assert torch.equal(wrong, ~right)
    assert correct.sum() == wrong.sum()
    assert not (wrong & correct).any()


@pytest.mark.parametrize(("wrong", "remedy"), [(0, "fewer"), (6, "more")])
def test_without_two_subsets_there_is_no_experiment(wrong, remedy):
    with pytest.raises(TurncoatError, match=f"misclassifies {wrong} of 10 .* {remedy} epochs"):
        choose(torch.arange(10) >= wrong, "correct", 0)


def test_the_choosing_network_finds_the_images_that_are_labelled_wrongly(monkeypatch):
    monkeypatch.undo()
    split = split_of(40)
    split.labels[:5] = (split.labels[:5] + 1) % 4
    short = TrainingSettings(epochs=4, batch_size=8, lr=0.01)
    made = method("misclassified", split=split, subset="misclassified", treatment="weaker", reference=short)
    assert made.chosen.nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("treatment", ["unperturbed", "weaker"])
def test_only_the_chosen_are_treated_otherwise(treatment):
    made = made_with(treatment=treatment)
    given = []
    made.model.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].detach()))
    gradients(made, batch_of())
    trained_on = given[-1]
    batch, made = batch_of(), made_with(treatment=treatment)  # anew: training has moved the running statistics
    strong = attack(made.model, batch, made.task.threat, made.settings.attack)
    assert torch.equal(trained_on[~CHOSEN], strong[~CHOSEN])
    instead = batch.images if treatment == "unperturbed" else attack(made.model, batch, made.task.threat, FGSM)
    assert torch.equal(trained_on[CHOSEN], instead[CHOSEN])
    assert not torch.equal(trained_on[CHOSEN], strong[CHOSEN])


def test_the_regulariser_is_that_of_the_chosen():
    made, pgd = made_with(treatment="regularised"), method("pgd")
    batch = batch_of()
    images = attack(made.model, batch_of(), made.task.threat, made.settings.attack)
    twin = network().train()
    attacked, clean = twin(images), twin(batch.images)
    added = sum(divergence(clean, attacked)[i].item() for i in (0, 3)) / 6
    difference = gradients(made, batch_of())[0] - gradients(pgd, batch_of())[0]
    assert difference.item() == pytest.approx(5 * added, rel=1e-3)


def test_without_beta_it_is_pgd_training():
    made, pgd = made_with(treatment="regularised", beta=0.0), method("pgd")
    assert torch.equal(gradients(made, batch_of())[0], gradients(pgd, batch_of())[0])
