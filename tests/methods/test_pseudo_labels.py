"""Hidden labels stay hidden: nothing that an arm trains on depends on them, nor on a baseline that has seen them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.defaults import DEFAULTS
from tests.methods.small import CLASSES, batch_of, gradients, images_of, method, network, split_of
from turncoat.data.batches import DeviceSplit
from turncoat.errors import TurncoatError
from turncoat.files import sha256
from turncoat.methods import pseudo_labels
from turncoat.methods.pseudo_labels import ImageFile, SemiSettings, labelled_part, mislabelled
from turncoat.papers.arms import arm_settings
from turncoat.settings import TrainingSettings, load

QUICK = TrainingSettings(epochs=6, batch_size=8, lr=0.05)


def semi(labelled=0.5, **more):
    return SemiSettings(labelled=labelled, labeller=QUICK, **more)


def prepared(split, net=None, name="mart", **more):
    """The method after `prepare`, and the split that it returned."""
    made = method(name, net or network(1), split_of(6))
    made.settings = made.settings.model_copy(update={"semi": semi(**more)})
    return made, made.prepare(net or network(1), split, seed=3)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 60), st.floats(0.1, 1), st.integers(0, 1000))
def test_the_labelled_part_has_its_size_and_every_class_in_proportion(n, share, seed):
    labels = torch.arange(n) % CLASSES
    part = labelled_part(labels, share, seed)
    assert len(part) == len(part.unique()) == round(share * n)
    counts = labels[part].bincount(minlength=CLASSES)
    assert counts.max() - counts.min() <= 2
    assert torch.equal(part, labelled_part(labels, share, seed))


def test_another_seed_labels_other_images():
    labels = torch.arange(60) % CLASSES
    assert set(labelled_part(labels, 0.3, 0).tolist()) != set(labelled_part(labels, 0.3, 1).tolist())


def test_nothing_depends_on_a_hidden_label(monkeypatch):
    split = split_of(32)
    seen = labelled_part(split.labels, 0.5, 3)
    monkeypatch.setattr(pseudo_labels, "labelled_part", lambda *given: seen)  # who is asked for labels is our choice
    scrambled = (split.labels + 1) % CLASSES
    scrambled[seen] = split.labels[seen]
    one, first = prepared(split)
    two, second = prepared(DeviceSplit(split.images, scrambled))
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(first.images, second.images)
    assert all(torch.equal(value, two.model.state_dict()[name]) for name, value in one.model.state_dict().items())


def test_nothing_depends_on_the_baseline():
    one, first = prepared(split_of(32), network(1))
    two, second = prepared(split_of(32), network(2))
    assert torch.equal(first.labels, second.labels)
    assert all(torch.equal(value, two.model.state_dict()[name]) for name, value in one.model.state_dict().items())


def test_labels_come_first_and_then_guesses_that_beat_chance():
    split = split_of(48)
    made, mixed = prepared(split, gamma=0.5)
    seen = labelled_part(split.labels, 0.5, 3)
    assert torch.equal(mixed.labels[:24], split.labels[seen])
    assert torch.equal(mixed.images[:24], split.images[seen])
    assert made.trust.tolist() == [1.0] * 24 + [0.5] * 24
    hidden = [place for place in range(48) if place not in set(seen.tolist())]
    assert torch.equal(mixed.images[24:], split.images[hidden])
    right = (mixed.labels[24:] == split.labels[hidden]).float().mean()
    assert 0.5 < right <= 1


def test_the_guesses_are_those_of_the_network_to_start_from():
    made, mixed = prepared(split_of(32))
    made.model.eval()
    with torch.no_grad():
        assert torch.equal(mixed.labels[16:], made.model(mixed.floats(16)).argmax(1))


def test_from_scratch_the_network_stays_as_it_came():
    net = network(5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    made = method("pgd", net, split_of(32), start="scratch", semi=semi())
    assert all(torch.equal(value, before[name]) for name, value in made.model.state_dict().items())


@pytest.mark.parametrize("name", ["pgd", "trades", "mart"])
def test_an_unlabelled_image_weighs_gamma(name):
    made = method(name)
    made.trust = torch.tensor([1.0, 1.0, 0.25, 0.25, 0.25, 1.0])
    twin = method(name)
    losses, _ = twin.objective(batch_of(), twin.attacked(batch_of()))
    expected = sum(w * value.item() for w, value in zip(made.trust.tolist(), losses, strict=True)) / 6
    assert gradients(made, batch_of())[0].item() == pytest.approx(expected, rel=1e-4)


def test_without_weight_the_unlabelled_are_left_out():
    split = split_of(32)
    made, known = prepared(split, gamma=0.0)
    seen = labelled_part(split.labels, 0.5, 3)
    assert torch.equal(known.labels, split.labels[seen])
    assert made.trust.tolist() == [1.0] * 16


def test_with_every_label_there_are_no_weights():
    assert method("mart").trust is None


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_set_share_of_the_hidden_labels_is_wrong(share):
    split = split_of(40)
    seen = labelled_part(split.labels, 0.5, 3)
    hidden = torch.ones(40, dtype=torch.bool)
    hidden[seen] = False
    _, train = prepared(split, wrong=share)
    true, given = split.labels[hidden], train.labels[20:]
    assert torch.equal(train.images[20:], split.images[hidden])
    assert torch.equal(train.labels[:20], split.labels[seen])
    assert (given != true).sum() == round(20 * share)
    assert 0 <= given.min() <= given.max() < CLASSES


def test_wrong_labels_are_of_any_other_class_alike():
    labels = torch.full((4000,), 2)
    given = mislabelled(labels, 0.75, CLASSES, 0)
    counts = given.bincount(minlength=CLASSES)
    assert counts[2] == 1000
    assert (counts[[0, 1, 3]] - 1000).abs().max() < 120  # four standard deviations
    assert torch.equal(given, mislabelled(labels, 0.75, CLASSES, 0))
    assert not torch.equal(given, mislabelled(labels, 0.75, CLASSES, 1))


def test_images_of_ones_own_join_the_unlabelled(tmp_path):
    more = (images_of(5, 4).numpy() * 255).astype(np.uint8)
    np.save(tmp_path / "more.npy", more)
    source = ImageFile(file=str(tmp_path / "more.npy"), sha256=sha256(tmp_path / "more.npy"))
    made, mixed = prepared(split_of(16), labelled=1.0, unlabelled=source)
    assert torch.equal(mixed.images[16:], torch.from_numpy(more))
    assert torch.equal(mixed.labels[:16].bincount(), torch.tensor([4, 4, 4, 4]))
    assert made.trust.tolist() == [1.0] * 21


def test_a_file_that_is_missing_changed_or_unfit_is_refused(tmp_path):
    path = tmp_path / "more.npy"

    def attempt(checksum=None):
        source = ImageFile(file=str(path), sha256=checksum or sha256(path))
        prepared(split_of(16), labelled=1.0, unlabelled=source)

    with pytest.raises(TurncoatError, match="no such file"):
        attempt("0" * 64)
    np.save(path, np.zeros((2, 1, 8, 8), np.uint8))
    with pytest.raises(TurncoatError, match=r"semi\.unlabelled\.sha256"):
        attempt("0" * 64)
    np.save(path, np.zeros((2, 3, 8, 8), np.uint8))
    with pytest.raises(TurncoatError, match=r"uint8 \(n, 1, 8, 8\) wanted"):
        attempt()
    path.write_bytes(b"not an array")
    with pytest.raises(TurncoatError, match=r"not a \.npy array"):
        attempt()
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(TurncoatError, match=r"not a \.npy array"):
        attempt()


def test_nobody_knows_which_labels_of_further_images_are_wrong():
    with pytest.raises(ValueError, match="wrong goes with hidden labels only"):
        semi(wrong=0.1, unlabelled=ImageFile(file="x.npy", sha256="0"))


def test_settings_that_make_no_sense_are_named():
    def arm(**more):
        settings = load(DEFAULTS).model_copy(update={"arms": {"mine": {"method": "mart", "semi": more}}})
        return arm_settings(settings, "mine")

    with pytest.raises(TurncoatError, match="nothing to label"):
        arm(labelled=1.0)
    with pytest.raises(TurncoatError, match=r"arms\.mine\.semi\.labelled"):
        arm(labelled=0.0)
    with pytest.raises(TurncoatError, match="did you mean labelled"):
        arm(labeled=0.5)
    with pytest.raises(TurncoatError, match="give 2 or more"):
        prepared(split_of(16), labelled=0.05)
