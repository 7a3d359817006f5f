"""What the comparisons of a table are about: methods, or the weights of their trainings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from kept_results import KeptResults
from metabench.analysis.crossed import crossed_interval
from metabench.analysis.standings import make_tables
from metabench.analysis.stats import Floats, mean_interval
from metabench.analysis.tables import Row, Table
from metabench.records.record import EpisodeResults, Record
from metabench.reporting.rendering import frame, render_text

Make = Callable[..., Record]

EPISODES = 100


def trained(mean: float, seeds: Sequence[int], spread: float = 0.01, draw: int = 0) -> dict[int, Floats]:
    """Return the values of each seed: its own mean, the difficulty of the episodes, and noise."""
    difficulty = np.random.default_rng(99).normal(0, 0.05, EPISODES)
    generator = np.random.default_rng(draw)
    return {
        seed: mean + generator.normal(0, spread) + difficulty + generator.normal(0, 0.02, EPISODES) for seed in seeds
    }


@pytest.fixture
def table_of(make_record: Make) -> Callable[..., Table]:
    """Return a function that makes a table of the values of methods; None instead of values is a failed seed."""

    def make(methods: dict[str, dict[int, Floats | None]], every_seed: Sequence[str] = ()) -> Table:
        records, results, number = [], {}, itertools.count()
        for name, by_seed in methods.items():
            for seed, of_seed in by_seed.items():
                cell = f"{next(number):016x}"
                mean = None if of_seed is None else float(of_seed.mean())
                records.append(make_record(mean, algorithm=name, seed=seed, cell=cell, every_seed=name in every_seed))
                if of_seed is not None:
                    results[cell] = EpisodeResults({"accuracy": of_seed}, np.arange(EPISODES * 5).reshape(-1, 5) % 40)
        (table,) = make_tables(records, KeptResults(lambda record: results[record.cell]))
        return table

    return make


def second(table: Table) -> Row:
    row = table.rows[1]
    assert row.versus_best is not None
    return row


def test_three_seeds_make_a_claim_about_the_methods(table_of: Callable[..., Table]) -> None:
    best, other = trained(0.7, range(3), draw=1), trained(0.6, range(3), draw=2)
    versus = second(table_of({"best": best, "other": other})).versus_best
    expected = crossed_interval(np.stack([other[seed] - best[seed] for seed in range(3)]))
    assert versus is not None
    assert versus.about_methods
    assert (versus.difference, versus.ci95, versus.p) == pytest.approx((expected.mean, expected.ci95, expected.p))
    weights = mean_interval(np.mean(list(other.values()), axis=0) - np.mean(list(best.values()), axis=0))
    assert versus.ci95 > weights.ci95


def test_what_three_lucky_trainings_show_may_be_no_difference_of_methods(table_of: Callable[..., Table]) -> None:
    """Episodes tell the weights apart; seeds do not tell the methods apart."""
    best, other = trained(0.7, range(3), spread=0.05, draw=3), trained(0.69, range(3), spread=0.05, draw=4)
    table = table_of({"one": best, "two": other})
    versus = second(table).versus_best
    assert versus is not None
    difference = np.mean(list(other.values()), axis=0) - np.mean(list(best.values()), axis=0)
    assert abs(difference.mean()) > mean_interval(difference).ci95
    assert versus.tie
    assert versus.settled_by is None
    if versus.settled_by_seeds:
        assert f"{versus.settled_by_seeds} training seeds would show it" in render_text([table])


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_seeds_are_these_weights(seeds: int, table_of: Callable[..., Table]) -> None:
    table = table_of({"best": trained(0.7, range(seeds)), "other": trained(0.6, range(seeds), draw=1)})
    versus = second(table).versus_best
    assert versus is not None
    assert not versus.about_methods
    assert versus.settled_by is not None
    assert "of these weights: a claim about the methods needs three training seeds" in render_text([table])
    assert set(frame([table])["versus_best_about"].dropna()) == {"weights"}


def test_only_seeds_in_common_count(table_of: Callable[..., Table]) -> None:
    best, other = trained(0.7, range(5), draw=1), trained(0.6, [0, 1, 2, 7], draw=2)
    versus = second(table_of({"best": best, "other": other})).versus_best
    assert versus is not None
    assert versus.difference == pytest.approx(np.mean([other[seed] - best[seed] for seed in range(3)]))
    apart = second(table_of({"best": trained(0.7, [0, 1, 2]), "other": trained(0.6, [2, 3, 4])})).versus_best
    assert apart is not None
    assert not apart.about_methods


def test_a_method_that_no_seed_changes_stands_beside_every_seed(table_of: Callable[..., Table]) -> None:
    best, fixed = trained(0.7, range(3), draw=1), trained(0.6, [0], draw=2)
    versus = second(table_of({"best": best, "fixed": fixed}, every_seed=["fixed"])).versus_best
    expected = crossed_interval(np.stack([fixed[0] - best[seed] for seed in range(3)]))
    assert versus is not None
    assert versus.about_methods
    assert versus.ci95 == pytest.approx(expected.ci95)
    both = second(table_of({"one": trained(0.7, [0], draw=1), "two": fixed}, every_seed=["one", "two"])).versus_best
    assert both is not None
    assert both.about_methods
    assert both.settled_by is not None


def test_a_failed_seed_leaves_no_claim(table_of: Callable[..., Table]) -> None:
    best, other, third = (trained(mean, range(4), draw=draw) for draw, mean in enumerate((0.7, 0.6, 0.5)))
    table = table_of({"best": best, "other": {**other, 3: None}, "third": third})
    about = {row.name: row.versus_best.about_methods for row in table.rows if row.versus_best}
    assert about == {"other": False, "third": True}
    assert [row.method_ci95 is None for row in table.rows] == [False, True, False]
    text = render_text([table])
    assert "seeds have failed, so that the mean is of the others, and no claim: other (3 of 4 seeds)" in text
    assert "compared with the best as these weights, not as methods: other" in text


def test_the_interval_about_a_method_is_over_seeds_and_episodes(table_of: Callable[..., Table]) -> None:
    values = trained(0.7, range(3))
    (row,) = table_of({"one": values}).rows
    assert row.method_ci95 == pytest.approx(crossed_interval(np.stack(list(values.values()))).ci95)
    assert table_of({"one": trained(0.7, range(2))}).rows[0].method_ci95 is None
