"""Tables that are ranked by another metric than the accuracy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kept_results import KeptResults
from metabench.analysis.estimates import estimates
from metabench.analysis.metrics import CLASSIFICATION
from metabench.analysis.paired import Contest, compare
from metabench.analysis.standings import make_tables, ranked_by
from metabench.analysis.stats import Floats
from metabench.analysis.tables import Row
from metabench.errors import UsageError
from metabench.records.record import EpisodeResults, Record

Make = Callable[..., Record]
Rank = Callable[..., list[Row]]

EPISODES = 400


def gaps(gap: float, seed: int) -> Floats:
    """Return figures of an ECE: the gap is in one bin, and each episode adds noise to it."""
    noise = np.random.default_rng(0).normal(0, 0.05, EPISODES) + np.random.default_rng(seed).normal(0, 0.02, EPISODES)
    return np.stack([noise - noise.mean() - gap, *np.zeros((14, EPISODES))], axis=1)


@pytest.fixture
def rank(make_record: Make) -> Rank:
    """Return a function that ranks methods by a metric, of which it gets the figures of each seed."""

    def rows(metric: str, figures: dict[str, list[Floats]]) -> list[Row]:
        groups = np.random.default_rng(0).integers(0, 40, (EPISODES, 5))
        results, records = {}, []
        for algorithm, of_seeds in figures.items():
            for seed, values in enumerate(of_seeds):
                cell = f"{algorithm}{seed}".encode().hex().ljust(16, "0")
                results[cell] = EpisodeResults({"accuracy": np.full(EPISODES, 0.5), metric: values}, groups)
                records.append(
                    make_record(
                        algorithm=algorithm,
                        cell=cell,
                        seed=seed,
                        metrics=estimates(results[cell].figures, groups, CLASSIFICATION),
                        declarations={measure.name: measure.declaration for measure in CLASSIFICATION},
                    )
                )
        (table,) = make_tables(ranked_by(records, metric), KeptResults(lambda record: results[record.cell]))
        return list(table.rows)

    return rows


def test_low_values_rank_first_where_low_is_better(rank: Rank) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, EPISODES)
    best, other = rank("nll", {"b": [0.5 + noise], "a": [0.4 + noise]})
    assert (best.name, other.name, other.rank) == ("a", "b", 2)
    assert other.versus_best is not None
    assert other.versus_best.difference == pytest.approx(0.1)
    assert other.versus_best.p_holm < 0.001
    assert best.metric.title == "NLL"
    assert best.metrics["accuracy"] == (0.5, 0.0)
    assert best.data_ci95 is not None


def test_a_pooled_metric_ranks_by_a_paired_bootstrap(rank: Rank) -> None:
    best, tied, last = rank("ece", {"far": [gaps(0.05, 1)], "near": [gaps(0.0202, 2)], "nearest": [gaps(0.02, 3)]})
    assert [row.name for row in (best, tied, last)] == ["nearest", "near", "far"]
    assert best.primary is not None
    assert best.primary.mean == pytest.approx(0.02)
    assert best.primary.ci95 == pytest.approx(1.96 * 0.054 / EPISODES**0.5, rel=0.15)
    assert (tied.tie, tied.rank) == (True, 1)
    assert last.versus_best is not None
    assert last.versus_best.difference == pytest.approx(0.03)
    assert last.versus_best.p_holm < 0.001
    # The episodes' own noise is common to both methods.
    assert last.versus_best.ci95 == pytest.approx(1.96 * 0.02 * (2 / EPISODES) ** 0.5, rel=0.15)


def test_seeds_of_a_pooled_metric_are_averaged_after_pooling(rank: Rank) -> None:
    """Gaps of opposite sign do not cancel."""
    (row,) = rank("ece", {"two": [gaps(0.02, 1), gaps(-0.04, 2)]})
    assert row.primary is not None
    assert row.primary.mean == pytest.approx(0.03)
    assert row.seed_ci95 is not None


@pytest.mark.slow
def test_equal_methods_are_told_apart_by_a_pooled_metric_in_at_most_one_of_twenty_tables() -> None:
    metric = next(measure.metric for measure in CLASSIFICATION if measure.name == "ece")
    alarms = 0
    for repetition in range(200):
        methods = [gaps(0.03, 10 * repetition + i) + 0.0 for i in range(2)]
        # `gaps` centres its noise; here the sampled mean has its error.
        shift = np.random.default_rng(repetition).normal(0, 0.02 / EPISODES**0.5, 2)
        for figures, moved in zip(methods, shift, strict=True):
            figures[:, 0] += moved
        ((row,),) = [result.versus_best for result in compare([Contest(methods, pooled=[metric, metric])])]
        alarms += row.p <= 0.05
    print(f"A/A: {alarms} of 200")
    assert alarms / 200 <= 0.08


def test_records_without_the_metric_are_named(make_record: Make) -> None:
    with pytest.raises(UsageError, match=r"1 of 1 records have no 'nll', e\.g\. that of one: compute it by"):
        ranked_by([make_record()], "nll")


def test_failed_records_stay(make_record: Make) -> None:
    records = [make_record(), make_record(None, algorithm="broken", cell="b" * 16)]
    assert ranked_by(records, "accuracy") == records
