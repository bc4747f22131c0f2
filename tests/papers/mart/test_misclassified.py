"""MART's first experiment: who is chosen, and that only they are treated otherwise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.small import batch_of, gradients, method, network, split_of
from turncoat.errors import TurncoatError
from turncoat.methods.adversarial import divergence
from turncoat.methods.base import attack
from turncoat.papers.mart import misclassified
from turncoat.papers.mart.misclassified import choose
from turncoat.settings import AttackSettings, ComputeSettings, TrainingSettings
from turncoat.training import fit, resolve

CHOSEN = torch.tensor([True, False, False, True, False, False])
FGSM = AttackSettings(steps=1, relative_step=1.0, start="none")


@pytest.fixture(autouse=True)
def _chosen(monkeypatch):
    """In place of a trained network: one that errs on images 0 and 3 of the batch."""
    monkeypatch.setattr(misclassified, "train_reference", lambda *given: None)
    monkeypatch.setattr(misclassified, "margins", lambda network, split: torch.where(CHOSEN, -1.0, 1.0))


def made_with(**arm):
    return method("misclassified", split=batch_of(), **({"subset": "misclassified"} | arm))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=10, max_size=40), st.sampled_from([0.1, 0.3, 0.5]))
def test_the_subsets_are_disjoint_and_of_one_size(values, share):
    values = torch.tensor(values)
    count, wrong = len(values), int((values <= 0).sum())
    size = max(wrong, round(share * count))
    if size > count // 2:
        with pytest.raises(TurncoatError, match=f"misclassifies {wrong} of {count} .* more epochs"):
            choose(values, "misclassified", share, 0)
        return
    hard, others = choose(values, "misclassified", share, 0), choose(values, "correct", share, 0)
    assert hard.sum() == others.sum() == size
    assert not (hard & others).any()
    assert values[hard].max() <= values[~hard].min()  # all that are misclassified, then the nearest to it
    assert (values[others] > 0).all()


def test_the_choosing_network_finds_the_images_that_are_labelled_wrongly(monkeypatch):
    monkeypatch.undo()
    split = split_of(40)
    split.labels[:5] = (split.labels[:5] + 1) % 4
    short = TrainingSettings(epochs=4, batch_size=8, lr=0.01)
    made = method(
        "misclassified", split=split, subset="misclassified", treatment="weaker", reference=short, share=0.125
    )
    assert made.chosen.nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("subset", "share"), [("misclassified", 2 / 3), ("correct", 0.0)])
def test_history_says_how_much_of_the_subset_is_misclassified(subset, share):
    """Two of six images are wrong and the subset takes three: one right image fills it up."""
    made = made_with(treatment="unperturbed", subset=subset, share=0.5)
    assert made.chosen.sum() == 3
    compute = resolve(ComputeSettings(device="cpu"))
    schedule = TrainingSettings(epochs=2, batch_size=2, lr=0.01)
    look = {"validation_clean": 0.5, "validation_robust": 0.5}
    history = fit(made, split_of(6), schedule, compute, seed=0, validate=lambda model: look).history
    assert [row["chosen_misclassified"] for row in history] == [pytest.approx(share, abs=1e-6)] * 2


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
