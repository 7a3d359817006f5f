from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from metabench.stats import mean_interval

accuracies = st.lists(st.floats(0, 1), min_size=2, max_size=50)


@given(accuracies)
def test_the_interval_is_students(values: list[float]) -> None:
    found = mean_interval(values)
    n = len(values)
    assert found.episodes == n
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    if found.std > 1e-12:
        low, high = t.interval(0.95, n - 1, loc=np.mean(values), scale=np.std(values, ddof=1) / n**0.5)
        assert (found.mean - found.ci95, found.mean + found.ci95) == pytest.approx((low, high))
    else:
        assert found.ci95 == pytest.approx(0, abs=1e-10)


@given(accuracies, st.randoms(use_true_random=False))
def test_the_order_of_episodes_does_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert mean_interval(shuffled).ci95 == pytest.approx(mean_interval(values).ci95)


def test_95_of_100_intervals_hold_the_true_mean() -> None:
    draws = np.random.default_rng(0).normal(0.7, 0.1, size=(2000, 8))
    found = [mean_interval(row) for row in draws]
    held = np.mean([abs(interval.mean - 0.7) <= interval.ci95 for interval in found])
    assert held == pytest.approx(0.95, abs=0.015)


def test_four_times_the_episodes_halve_the_interval() -> None:
    values = np.random.default_rng(1).uniform(size=400)
    ratio = mean_interval(np.tile(values, 4)).ci95 / mean_interval(values).ci95
    assert ratio == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_one_episode_makes_no_interval(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least two episodes"):
        mean_interval(values)
