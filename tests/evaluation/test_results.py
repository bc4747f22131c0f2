"""The worst case over attacks, image by image."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from turncoat.evaluation.results import BLACK_BOX, ITERATIVE, ONE_STEP, Evaluation


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


def test_without_attacks_the_worst_case_is_clean() -> None:
    result = evaluation(np.array([True, False, True]))
    assert result.worst.tolist() == [True, False, True]
