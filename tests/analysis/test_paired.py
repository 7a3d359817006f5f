from __future__ import annotations

from itertools import combinations, product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test, ttest_rel

from metabench.analysis.paired import Comparisons, Contest, PairedDifference, compare, holm, pair_p_values, settled_by
from metabench.analysis.stats import mean_interval


def compare_with(reference: npt.ArrayLike, others: list[npt.ArrayLike]) -> list[PairedDifference]:
    return list(compare([Contest([np.asarray(reference), *(np.asarray(other) for other in others)])])[0].versus_best)


def sign_flip_p(differences: npt.ArrayLike, flips: int = 10_000) -> list[float]:
    """Return the p-value of each row of differences, as that of a method and one with accuracy 0."""
    tables = [np.stack([row, np.zeros_like(row)]) for row in np.asarray(differences)]
    return [float(p) for (p,) in pair_p_values(tables, flips)]


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
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.015)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_nor_changes_their_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert (adjusted >= np.array(values)).all()
    assert (adjusted <= 1).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert adjusted.min() == pytest.approx(min(1, len(values) * min(values)))


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
    with pytest.raises(ValueError, match="same shape"):
        compare_with([0.1, 0.2], [[0.1, 0.2, 0.3]])


def test_tables_are_adjusted_each_for_itself() -> None:
    generator = np.random.default_rng(4)
    contests = [
        Contest([generator.normal(0, 0.1, n), *(generator.normal(0.02, 0.1, n) for _ in range(methods))])
        for n, methods in ((50, 3), (80, 3), (50, 5))
    ]
    together = compare(contests)
    assert together == [compare([contest])[0] for contest in contests]
    assert compare([Contest([np.zeros(3)]), Contest([])]) == [Comparisons([], [[1.0]])] * 2


def holm_of_a_textbook(p_values: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """Return the adjusted p-values, each as the largest of p · (number of hypotheses left) so far."""
    adjusted, so_far = {}, 0.0
    for rank, pair in enumerate(sorted(p_values, key=lambda pair: p_values[pair])):
        so_far = max(so_far, p_values[pair] * (len(p_values) - rank))
        adjusted[pair] = min(1.0, so_far)
    return adjusted


def seven_methods() -> list[npt.NDArray[np.float64]]:
    """Return two good methods and five that are clearly worse."""
    generator = np.random.default_rng(16)
    difficulty = generator.normal(0, 0.1, 60)
    means = (0.72, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1)
    return sorted((mean + difficulty + generator.normal(0, 0.05, 60) for mean in means), key=lambda row: -row.mean())


def test_p_is_adjusted_by_holm_over_all_pairs_of_the_table() -> None:
    methods = seven_methods()
    (found,) = compare([Contest(methods)])
    pairs = list(combinations(range(7), 2))
    alone = {(i, j): sign_flip_p([methods[j] - methods[i]])[0] for i, j in pairs}
    expected = holm_of_a_textbook(alone)
    assert {(i, j): found.p_holm[i][j] for i, j in pairs} == pytest.approx(expected)
    assert {(i, j): found.p_holm[j][i] for i, j in pairs} == pytest.approx(expected)
    assert [difference.p_holm for difference in found.versus_best] == pytest.approx(
        [expected[0, j] for j in range(1, 7)]
    )
    assert [difference.p for difference in found.versus_best] == pytest.approx([alone[0, j] for j in range(1, 7)])


def test_a_clear_difference_is_no_tie_because_other_pairs_are_clearer() -> None:
    second = compare_with(seven_methods()[0], seven_methods()[1:])[0]
    assert second.p == pytest.approx(0.0041, abs=0.0002)
    assert second.p_holm == second.p, "the other 20 pairs are clearer, so one hypothesis is left"
    assert not second.tie


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(2, 9), st.sampled_from([1, 3, 75]))
def test_equal_sums_are_counted_as_equal(seed: int, methods: int, episodes: int, parts: int) -> None:
    """The accuracies of few queries have many sign patterns with equal sums, which differ by rounding."""
    points = np.random.default_rng(seed).integers(0, 4, (methods, episodes))
    (found,) = pair_p_values([1 / 3 + points / parts])
    signs = np.array(list(product([-1, 1], repeat=episodes)))
    for p, (i, j) in zip(found, combinations(range(methods), 2), strict=True):
        difference = points[i] - points[j]
        exact = np.mean(np.abs(signs @ difference) >= abs(difference.sum()))
        assert p == pytest.approx(exact, abs=0.03)


def test_ties_need_the_level_that_holm_leaves_them() -> None:
    """One of three pairs is significant, so the two others are tested at .05 / 2."""
    generator = np.random.default_rng(0)
    difficulty = generator.normal(0.5, 0.1, 80)
    best = difficulty + 0.02 + generator.normal(0, 0.1, 80)
    methods = [best, difficulty + 0.01, difficulty - 0.01 + generator.normal(0, 0.001, 80)]
    (found,) = compare([Contest(methods)])
    assert [p > 0.05 for p in (found.p_holm[0][1], found.p_holm[0][2], found.p_holm[1][2])] == [True, True, False]
    difference = mean_interval(methods[1] - methods[0])
    assert found.versus_best[0].settled_by == settled_by(difference.mean, difference.std, 0.05 / 2)
    assert found.versus_best[0].settled_by > 80
