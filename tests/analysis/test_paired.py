from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test, ttest_rel

from metabench.analysis.paired import Contest, PairedDifference, compare, holm, settled_by, sign_flip_p
from metabench.analysis.stats import mean_interval


def compare_with(reference: npt.ArrayLike, others: list[npt.ArrayLike]) -> list[PairedDifference]:
    return compare([Contest(np.asarray(reference), [np.asarray(other) for other in others])])[0]


differences = st.lists(st.floats(-1, 1), min_size=2, max_size=30)


def test_the_difference_and_its_interval_are_those_of_the_pairs() -> None:
    generator = np.random.default_rng(0)
    base = generator.uniform(0.5, 1, 200)
    other = base - generator.normal(0.01, 0.02, 200)
    (found,) = compare_with(base, [other])
    test = ttest_rel(other, base)
    low, high = test.confidence_interval(0.95)
    assert found.difference == pytest.approx(np.mean(other - base))
    assert (found.difference - found.ci95, found.difference + found.ci95) == pytest.approx((low, high))
    assert found.data_ci95 is None
    assert not found.tie


def test_p_approximates_that_of_all_sign_patterns() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, 12)
    exact = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    (p,) = sign_flip_p([values], flips=20_000)
    assert p == pytest.approx(exact.pvalue, abs=0.01)


@given(differences)
def test_p_is_two_sided(values: list[float]) -> None:
    array = np.array([values, [-value for value in values]])
    p = sign_flip_p(array, flips=200)
    assert p[0] == p[1]
    assert 0 <= p[0] <= 1


def test_no_difference_at_all_is_a_tie_that_nothing_settles() -> None:
    (found,) = compare_with([0.5, 0.7, 0.9], [[0.5, 0.7, 0.9]])
    assert (found.difference, found.ci95, found.p, found.settled_by) == (0, 0, 1, None)
    assert found.tie


def test_equal_methods_differ_in_one_of_twenty_tables() -> None:
    generator = np.random.default_rng(2)
    rows = generator.normal(0, 0.1, (2000, 60))
    p = sign_flip_p(rows, flips=2000)
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.015)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_nor_changes_their_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert (adjusted >= np.array(values)).all()
    assert (adjusted <= 1).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert adjusted.min() == pytest.approx(min(1, len(values) * min(values)))
    assert (holm(values, len(values) + 3) >= adjusted).all()


def test_holm_matches_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("methods", [5, 10])
def test_of_equal_methods_the_best_is_told_apart_in_at_most_one_of_twenty_tables(methods: int) -> None:
    generator = np.random.default_rng(3)
    wrong = 0
    for _ in range(400):
        rows = sorted(generator.normal(0, 0.1, (methods, 50)), key=lambda row: -row.mean())
        wrong += any(not found.tie for found in compare_with(rows[0], rows[1:]))
    assert wrong / 400 < 0.06


def test_a_difference_that_no_flip_reaches_has_the_p_of_the_t_test() -> None:
    values = np.random.default_rng(6).normal(0.05, 0.1, 400)
    (p,) = sign_flip_p([values])
    assert 0 < p < 1e-6
    assert p == pytest.approx(ttest_rel(values, np.zeros(400)).pvalue)


def test_settled_by_episodes_find_the_difference_in_four_of_five_tables() -> None:
    episodes = settled_by(0.01, 0.1)
    assert episodes is not None
    draws = np.random.default_rng(5).normal(0.01, 0.1, (2000, episodes))
    told_apart = np.mean([abs(row.mean()) > mean_interval(row).ci95 for row in draws])
    assert told_apart == pytest.approx(0.8, abs=0.03)


@given(st.floats(0.001, 0.1), st.floats(0.001, 0.3), st.floats(0.001, 0.05))
def test_a_stricter_test_needs_more_episodes(difference: float, std: float, level: float) -> None:
    strict, usual = settled_by(difference, std, level), settled_by(-difference, std)
    assert strict is not None
    assert usual is not None
    assert strict >= usual >= 2


def test_equally_many_right_answers_are_no_difference() -> None:
    base = np.array([0.5, 0.7, 0.6])
    (found,) = compare_with(base, [base[[1, 2, 0]]])
    assert found.settled_by is None
    assert found.tie


def test_unequal_numbers_of_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        compare_with([0.1, 0.2], [[0.1, 0.2, 0.3]])


def test_tables_are_adjusted_each_for_itself() -> None:
    generator = np.random.default_rng(4)
    contests = [
        Contest(generator.normal(0, 0.1, n), [generator.normal(0.02, 0.1, n) for _ in range(3)]) for n in (50, 80, 50)
    ]
    together = compare(contests)
    assert together == [compare([contest])[0] for contest in contests]
    assert compare([Contest(np.zeros(3), [])]) == [[]]
