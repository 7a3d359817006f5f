"""Intervals over seeds and episodes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metabench.analysis.crossed import crossed_interval
from metabench.analysis.stats import Floats, mean_interval

EPISODES = 300


def values(seeds: int, of_seeds: float, of_episodes: float, generator: np.random.Generator) -> Floats:
    """Draw values of mean 0: standard deviations of seeds and episodes, that of the rest being 1."""
    return (
        generator.normal(0, of_seeds, (seeds, 1))
        + generator.normal(0, of_episodes, (1, EPISODES))
        + generator.normal(0, 1, (seeds, EPISODES))
    )


def coverage(seeds: int, of_seeds: float, of_episodes: float, repetitions: int = 2000) -> float:
    """Return the share of simulated tables whose interval contains the true mean."""
    generator = np.random.default_rng(seeds)
    found = (crossed_interval(values(seeds, of_seeds, of_episodes, generator)) for _ in range(repetitions))
    return float(np.mean([abs(interval.mean) <= interval.ci95 for interval in found]))


#: Standard deviations of seeds and episodes: no effects, weak ones, seeds that matter as episodes do, and much more.
EFFECTS = [(0.0, 0.0), (0.05, 0.2), (0.1, 0.5), (0.5, 1.0), (3.0, 0.0)]


@pytest.mark.parametrize(("of_seeds", "of_episodes"), EFFECTS)
def test_the_interval_of_three_seeds_contains_the_true_mean_in_92_of_100_tables(
    of_seeds: float, of_episodes: float
) -> None:
    assert coverage(3, of_seeds, of_episodes) >= 0.92


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize(("of_seeds", "of_episodes"), EFFECTS)
def test_the_interval_of_five_seeds_and_more_has_its_nominal_coverage(
    seeds: int, of_seeds: float, of_episodes: float
) -> None:
    assert coverage(seeds, of_seeds, of_episodes) == pytest.approx(0.95, abs=0.015)


def test_an_interval_over_episodes_alone_does_not_cover_other_seeds() -> None:
    generator = np.random.default_rng(0)
    intervals = [mean_interval(values(5, 1.0, 1.0, generator).mean(axis=0)) for _ in range(500)]
    assert np.mean([abs(interval.mean) <= interval.ci95 for interval in intervals]) < 0.6


def test_equal_methods_differ_in_one_of_twenty_tables() -> None:
    generator = np.random.default_rng(1)
    p = [crossed_interval(values(5, 0.3, 1.0, generator)).p for _ in range(2000)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_where_only_seeds_matter_it_is_that_of_their_means(seeds: int) -> None:
    means = np.random.default_rng(seeds).normal(0.5, 0.1, seeds)
    found, expected = crossed_interval(np.repeat(means[:, None], EPISODES, axis=1)), mean_interval(means)
    assert (found.mean, found.ci95) == pytest.approx((expected.mean, expected.ci95))
    assert found.freedom == pytest.approx(seeds - 1)


def test_where_seeds_do_not_matter_it_is_that_over_episodes() -> None:
    episodes = np.random.default_rng(0).normal(0.5, 0.1, EPISODES)
    found, expected = crossed_interval(np.tile(episodes, (4, 1))), mean_interval(episodes)
    assert (found.mean, found.ci95) == pytest.approx((expected.mean, expected.ci95))


@given(st.integers(2, 6), st.integers(2, 20), st.floats(-10, 10), st.floats(0.1, 10), st.integers(0, 2**31))
def test_shift_and_scale_carry_over(seeds: int, episodes: int, shift: float, scale: float, seed: int) -> None:
    drawn = np.random.default_rng(seed).normal(size=(seeds, episodes))
    found, changed = crossed_interval(drawn), crossed_interval(drawn * scale + shift)
    assert changed.mean == pytest.approx(found.mean * scale + shift)
    assert changed.ci95 == pytest.approx(found.ci95 * scale, rel=1e-6)
    assert crossed_interval(-drawn).p == pytest.approx(found.p)
    assert 0 <= found.p <= 1


def test_no_variation_leaves_no_doubt() -> None:
    assert crossed_interval(np.zeros((3, 5))).p == 1
    assert crossed_interval(np.ones((3, 5))).p == 0


@pytest.mark.parametrize("shape", [(1, 5), (3, 1), (5,)])
def test_one_seed_or_episode_makes_no_interval(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two of each"):
        crossed_interval(np.zeros(shape))
