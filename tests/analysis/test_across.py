"""One ranking of methods over many datasets."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from kept_results import KeptResults
from metabench.analysis.across import Ranking, Standing, rank_across
from metabench.analysis.standings import make_tables
from metabench.analysis.tables import Table
from metabench.errors import UsageError
from metabench.records.record import EpisodeResults, Record
from metabench.reporting.across import ranking_csv, ranking_json, ranking_sheet
from metabench.reporting.sheets import render_sheets

Make = Callable[..., Record]
TablesOf = Callable[[Mapping[tuple[str, int], Mapping[str, float | None]]], list[Table]]


@pytest.fixture
def tables_of(make_record: Make, make_results: Callable[..., EpisodeResults]) -> TablesOf:
    """Return a function that makes tables of the methods' means, by dataset and shot; None has failed."""

    def make(means: Mapping[tuple[str, int], Mapping[str, float | None]]) -> list[Table]:
        number = itertools.count()
        records = [
            make_record(mean, algorithm=name, dataset=dataset, shot=shot, cell=f"{next(number):016x}")
            for (dataset, shot), methods in means.items()
            for name, mean in methods.items()
        ]
        return make_tables(records, KeptResults(lambda record: make_results(record.primary and record.primary.value)))

    return make


def standings(ranking: Ranking) -> dict[str, Standing]:
    return {standing.name: standing for standing in ranking.standings}


def test_ranks_are_averaged_over_the_tables_of_a_dataset_and_then_over_datasets(tables_of: TablesOf) -> None:
    ranking = rank_across(
        tables_of(
            {
                ("one", 1): {"a": 0.9, "b": 0.8, "c": 0.7},
                ("one", 5): {"a": 0.7, "b": 0.8, "c": 0.9},
                ("two", 1): {"a": 0.9, "b": 0.8, "c": 0.8},
            }
        )
    )
    ranks = {standing.name: standing.mean_rank and standing.mean_rank.value for standing in ranking.standings}
    assert ranks == {"a": (2 + 1) / 2, "b": (2 + 2.5) / 2, "c": (2 + 2.5) / 2}
    wins = {standing.name: standing.wins and standing.wins.value for standing in ranking.standings}
    assert wins == {"a": (0.5 + 1) / 2, "b": (0.5 + 0.25) / 2, "c": (0.5 + 0.25) / 2}
    assert (ranking.datasets, ranking.tables) == (["one", "two"], 3)


def test_a_failed_cell_is_worse_than_all_that_have_a_value(tables_of: TablesOf) -> None:
    found = standings(
        rank_across(
            tables_of({("one", 1): {"a": 0.9, "b": 0.1, "c": None}, ("two", 1): {"a": 0.5, "b": 0.6, "c": 0.9}})
        )
    )
    assert found["c"].mean_rank is not None
    assert found["c"].mean_rank.value == (3 + 1) / 2
    assert (found["c"].failed, found["a"].failed) == (1, 0)


def test_a_method_with_a_missing_cell_has_wins_but_no_mean_rank(tables_of: TablesOf) -> None:
    ranking = rank_across(tables_of({("one", 1): {"a": 0.9, "b": 0.8, "new": 0.95}, ("two", 1): {"a": 0.5, "b": 0.6}}))
    found = standings(ranking)
    assert found["new"].mean_rank is None
    assert found["new"].wins is not None
    assert found["new"].wins.value == 1
    assert found["new"].missing == ["two · 5-way 1-shot · conv4"]
    assert [standing.name for standing in ranking.standings][-1] == "new"
    assert [found[name].mean_rank and found[name].mean_rank.value for name in "ab"] == [1.5, 1.5], "among themselves"
    text = render_sheets([ranking_sheet(ranking)], "table")
    assert "without a mean rank, because they have no result in two · 5-way 1-shot · conv4: new" in text


@pytest.mark.parametrize(("datasets", "known"), [(5, False), (6, True)])
def test_intervals_need_six_datasets(datasets: int, known: bool, tables_of: TablesOf) -> None:
    generator = np.random.default_rng(0)
    means = {
        (f"d{i}", 1): dict(zip("ab", generator.uniform(0.3, 0.9, 2).tolist(), strict=True)) for i in range(datasets)
    }
    ranking = rank_across(tables_of(means))
    for standing in ranking.standings:
        assert standing.mean_rank is not None
        assert (standing.mean_rank.low is not None) == known
        if standing.mean_rank.low is not None and standing.mean_rank.high is not None:
            assert 1 <= standing.mean_rank.low <= standing.mean_rank.value <= standing.mean_rank.high <= 2
    assert ("no intervals" in render_sheets([ranking_sheet(ranking)], "table")) != known


def test_a_method_that_wins_everywhere_leaves_no_doubt_about_these_ranks(tables_of: TablesOf) -> None:
    best = rank_across(tables_of({(f"d{i}", 1): {"a": 0.9, "b": 0.5} for i in range(8)})).standings[0]
    assert best.mean_rank is not None
    assert (best.name, best.mean_rank.low, best.mean_rank.high) == ("a", 1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_wins_add_up(seed: int, tables_of: TablesOf) -> None:
    """The mean of all ranks is (m + 1) / 2, and that of all wins a half, whoever wins."""
    generator = np.random.default_rng(seed)
    means = {
        (f"d{i}", shot): dict(zip("abcd", generator.choice([0.2, 0.4, 0.6], 4).tolist(), strict=True))
        for i in range(3)
        for shot in (1, 5)
    }
    found = rank_across(tables_of(means)).standings
    assert np.mean([one.mean_rank.value for one in found if one.mean_rank]) == pytest.approx(2.5)
    assert np.mean([one.wins.value for one in found if one.wins]) == pytest.approx(0.5)


def test_one_dataset_is_no_ranking_over_datasets(tables_of: TablesOf) -> None:
    with pytest.raises(UsageError, match="needs several, and these runs have one: name further directories"):
        rank_across(tables_of({("one", 1): {"a": 0.9, "b": 0.8}, ("one", 5): {"a": 0.9, "b": 0.8}}))
    with pytest.raises(UsageError, match="no table has two methods"):
        rank_across(tables_of({("one", 1): {"a": 0.9}, ("two", 1): {"b": 0.8}}))


def test_csv_and_json_are_unrounded(tables_of: TablesOf) -> None:
    ranking = rank_across(tables_of({("one", 1): {"a": 0.9, "b": 0.8, "c": 0.7}, ("two", 1): {"a": 0.9, "b": 0.8}}))
    rows = json.loads(ranking_json(ranking))
    assert [row["method"] for row in rows] == ["a", "b", "c"]
    assert (rows[2]["mean_rank"], rows[2]["missing"]) == (None, ["two · 5-way 1-shot · conv4"])
    assert ranking_csv(ranking).splitlines()[1].startswith("a,1.0,,,1.0,")
