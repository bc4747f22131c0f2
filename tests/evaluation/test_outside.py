"""What is no module and no tensor; images kept; targeted entries; another batch size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.evaluation.conftest import THREAT
from turncoat.attacks import Threat
from turncoat.errors import TurncoatError
from turncoat.evaluation import evaluate, plan_suite
from turncoat.evaluation.keeper import Keeper

PGD = {"pgd": {"attack": "pgd", "steps": 10}}
SQUARE = {"square": {"attack": "square", "queries": 50}}


def test_kept_images_bring_the_network_down_within_the_threat(
    network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    suite = plan_suite("s", PGD | {"fgsm": {"attack": "fgsm"}}, radii=[0.5, 1.5])
    result = evaluate(network, images[:60], labels[:60], THREAT, suite, keep=True)
    plain = evaluate(network, images[:60], labels[:60], THREAT, suite)
    kept = result.adversarial
    assert kept is not None
    assert plain.adversarial is None
    assert (plain.worst == result.worst).all()
    assert kept.index.tolist() == np.flatnonzero(result.clean & ~result.worst).tolist()
    assert len(kept.index) > 10
    made = torch.from_numpy(kept.images)
    assert (network(made).argmax(1).numpy() != kept.label).all()
    assert (made - images[:60][kept.index]).abs().max() <= THREAT.epsilon + 1e-6
    assert set(kept.attack) <= {"pgd", "fgsm"}


def test_a_run_that_goes_on_finds_the_images_of_finished_batches(
    tmp_path: Path, network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    first = evaluate(network, images[:40], labels[:40], THREAT, PGD, keep=Keeper(tmp_path), batch_size=15)
    again = Keeper(tmp_path).found(first, (1, 8, 8))  # what a new process reads
    assert first.adversarial is not None
    assert np.array_equal(first.adversarial.images, again.images)
    assert first.adversarial.index.tolist() == again.index.tolist()
    assert len(again.index)


def test_a_bare_function_is_attacked_by_its_answers(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    with pytest.raises(TurncoatError, match="pgd need gradients, and a bare function has none") as error:
        evaluate(lambda x: network(x), images, labels, THREAT, PGD | SQUARE)
    assert "\n" not in str(error.value)
    with pytest.raises(TurncoatError, match="no attack is left for a black box"):
        evaluate(lambda x: network(x), images, labels, THREAT, PGD, black_box=True)
    seen = []

    def ask(batch: Tensor) -> np.ndarray:
        seen.append(torch.is_grad_enabled())
        return network(batch).numpy()

    result = evaluate(ask, images[:40], labels[:40], THREAT, PGD | SQUARE, black_box=True)
    assert not any(seen)
    assert list(result.correct) == ["square"]
    assert result.worst.sum() < result.clean.sum()
    said = {flag.name: flag for flag in result.flags}["black-box"]
    assert said.blocks
    assert "left out: pgd" in said.detail
    same = evaluate(network, images[:40], labels[:40], THREAT, SQUARE, checks=False)
    assert (same.correct["square"] == result.correct["square"]).all()


def test_a_module_may_be_a_black_box_and_keeps_its_mode(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    training = nn.Sequential(network, nn.Dropout(0.5)).train()
    result = evaluate(training, images[:30], labels[:30], THREAT, SQUARE, black_box=True)
    assert training.training
    assert training[1].training
    network.eval()
    assert (result.prediction == network(images[:30]).argmax(1).numpy()).all()


def test_loaders_and_arrays_on_the_disk_give_the_same(
    tmp_path: Path, network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    plain = evaluate(network, images[:40], labels[:40], THREAT, PGD)
    loader = DataLoader(TensorDataset(images[:40], labels[:40]), batch_size=7)
    np.save(tmp_path / "images.npy", images[:40].numpy())
    before = (tmp_path / "images.npy").read_bytes()
    stored = np.load(tmp_path / "images.npy", mmap_mode="r")
    for given, these in ((loader, None), (stored, labels[:40])):
        found = evaluate(network, given, these, THREAT, PGD)
        assert (found.correct["pgd"] == plain.correct["pgd"]).all()
    assert (tmp_path / "images.npy").read_bytes() == before


@pytest.mark.parametrize("towards", ["least-likely", "random", "next"])
def test_a_targeted_entry_leads_to_its_class(towards: str, network: nn.Module, images: Tensor, labels: Tensor) -> None:
    suite = {"aimed": {"attack": "pgd", "steps": 40, "targeted": towards}}
    wide = Threat("linf", 0.5)  # within which the class is reached
    result = evaluate(network, images[:60], labels[:60], wide, suite, keep=True, checks=False)
    again = evaluate(network, images[:60], labels[:60], wide, suite, checks=False)
    assert (result.correct["aimed"] == again.correct["aimed"]).all()
    kept = result.adversarial
    assert kept is not None
    assert len(kept.index) > 10
    reached = network(torch.from_numpy(kept.images)).argmax(1)
    clean, own = network(images[kept.index]), torch.from_numpy(kept.label)
    if towards == "next":
        assert (reached == (own + 1) % 10).float().mean() > 0.5
    elif towards == "least-likely":
        assert (reached == clean.argmin(1)).float().mean() > 0.5
    else:
        assert len(set(((reached - own) % 10).tolist())) > 4


def test_only_attacks_with_a_target_may_be_targeted() -> None:
    with pytest.raises(TurncoatError, match=r"aimed\.targeted: autoattack takes no target class; "):
        plan_suite("s", {"aimed": {"attack": "autoattack", "targeted": "next"}})
    with pytest.raises(TurncoatError, match="did you mean next"):
        plan_suite("s", {"aimed": {"attack": "pgd", "steps": 2, "targeted": "nxt"}})
