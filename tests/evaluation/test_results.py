"""The worst case over attacks, image by image."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from turncoat.evaluation.recording import measurements, write_examples
from turncoat.evaluation.results import BLACK_BOX, ITERATIVE, ONE_STEP, Evaluation
from turncoat.reporting.record import Checkpoint


def evaluation(clean: np.ndarray, **attacks: np.ndarray) -> Evaluation:
    n = len(clean)
    made = Evaluation(np.zeros(n, np.int64), np.where(clean, 0, 1), np.ones(n, np.float32))
    for name, right in attacks.items():
        made.correct[name] = right & clean
        made.kinds[name] = {"f": ONE_STEP, "s": BLACK_BOX}.get(name[0], ITERATIVE)
    return made


Outcomes = st.integers(1, 40).flatmap(lambda n: arrays.arrays(np.bool_, (5, n)))


@given(Outcomes)
def test_the_worst_case_is_what_every_attack_left(rows: np.ndarray) -> None:
    clean, fgsm, pgd, square, other = rows
    result = evaluation(clean, fgsm=fgsm, pgd=pgd, square=square, other=other)
    result.threats["other"] = {"norm": "l2", "epsilon": 0.5}
    assert np.array_equal(result.worst, clean & fgsm & pgd & square)
    assert result.in_worst == ["fgsm", "pgd", "square"]
    assert all(result.worst.sum() <= result.correct[name].sum() for name in result.in_worst)
    assert np.array_equal(result.standing(ITERATIVE), clean & pgd)
    assert np.array_equal(result.standing(ITERATIVE, BLACK_BOX), clean & pgd & square)
    assert not (result.worst & ~result.standing(ITERATIVE, ONE_STEP)).any()


@given(Outcomes)
def test_an_ensembles_black_box_part_is_told_apart(rows: np.ndarray) -> None:
    clean, pgd, first, second, _ = rows
    after_gradients = clean & first
    fell_to_square = after_gradients & second
    result = evaluation(clean, pgd=pgd, auto=after_gradients & ~fell_to_square)
    result.parts["auto"] = {"apgd-ce": clean & ~first, "square": fell_to_square}
    assert np.array_equal(result.standing(ITERATIVE), clean & pgd & first)
    assert np.array_equal(result.standing(ITERATIVE, BLACK_BOX), result.worst)


Random = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.bool_, n),
        st.lists(
            st.tuples(arrays.arrays(np.bool_, n), arrays.arrays(np.float64, n, elements=st.floats(0, 1))),
            min_size=1,
            max_size=5,
        ),
    )
)


def random_network(clean: np.ndarray, attacks: list[tuple[np.ndarray, np.ndarray]]) -> Evaluation:
    result = evaluation(clean, **{f"a{k}": right for k, (right, _) in enumerate(attacks)})
    result.harm = {f"a{k}": np.where(clean, harm, -1.0) for k, (_, harm) in enumerate(attacks)}
    return result


@given(Random)
def test_of_a_random_network_the_worst_case_never_lies_above_an_attack(
    made: tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]],
) -> None:
    clean, attacks = made
    result = random_network(clean, attacks)
    assert not (result.worst & ~clean).any()
    assert result.worst.sum() <= min(right.sum() for right in result.correct.values())
    assert result.worst.sum() <= result.outcome(result.in_worst).right.sum()
    before = [random_network(clean, attacks[:count]).worst.sum() for count in range(1, len(attacks) + 1)]
    assert before == sorted(before, reverse=True)  # a further attack, of a second look say, lets no more stand


def test_a_single_attack_that_leaves_fewer_than_the_choice_by_harm_is_the_worst_case() -> None:
    clean = np.ones(4, bool)
    luckless = np.array([True, True, True, False]), np.array([0.9, 0.9, 0.1, 0.1])  # most harm over the other draws
    strong = np.array([False, True, False, True]), np.array([0.8, 0.8, 0.8, 0.8])
    result = random_network(clean, [luckless, strong])
    assert result.outcome(result.in_worst).right.tolist() == [True, True, False, True]
    assert result.worst.tolist() == strong[0].tolist()
    harmful = np.zeros(4, bool), np.ones(4)
    assert not random_network(clean, [luckless, strong, harmful]).worst.any()


def test_each_foreign_threat_has_a_worst_case_of_its_own() -> None:
    clean = np.array([True, True, True, False])
    result = evaluation(
        clean,
        pgd=np.array([True, True, True, True]),
        a=np.array([False, True, True, True]),
        b=np.array([True, False, True, True]),
        c=np.array([True, True, True, True]),
        moved=np.zeros(4, bool),
    )
    l2 = {"norm": "l2", "epsilon": 0.5}
    result.threats = {"a": l2, "b": l2, "c": {"norm": "linf", "epsilon": 8 / 255}, "moved": None}
    assert result.unseen == {"worst-l2-0.5": ["a", "b"], "worst-linf-0.03137": ["c"]}
    assert result.worst_of(["a", "b"]).tolist() == [False, False, True, False]
    assert result.worst.tolist() == clean.tolist()
    result.passes = {name: {"forward": 1.0, "backward": 1.0} for name in result.correct}
    measured = measurements(result, ["x"])
    assert measured["unseen"]["worst-l2-0.5"] == {"correct": 1, "n": 4, "attacks": ["a", "b"]}
    read = Checkpoint.model_validate(measured)
    count = read.count("worst-l2-0.5")
    assert count
    assert (count.correct, count.n) == (1, 4)


def test_the_counts_of_a_record_are_those_of_its_arrays(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    attacks = [(generator.random(200) < 0.5, generator.random(200)) for _ in range(4)]
    result = random_network(generator.random(200) < 0.9, attacks)
    result.threats = {name: {"norm": "l2", "epsilon": 0.5} for name in ("a2", "a3")}
    result.passes = {name: {"forward": 1.0, "backward": 1.0} for name in result.correct}
    measured = measurements(result, ["x"])
    write_examples(tmp_path / "examples.npz", result)
    with np.load(tmp_path / "examples.npz") as kept:
        assert kept["worst"].sum() == measured["worst"]["correct"] == measured["per_class"][0]["worst"]
        assert kept["worst-l2-0.5"].sum() == measured["unseen"]["worst-l2-0.5"]["correct"]


def test_without_attacks_the_worst_case_is_clean() -> None:
    result = evaluation(np.array([True, False, True]))
    assert result.worst.tolist() == [True, False, True]
