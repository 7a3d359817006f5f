from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from metabench.plugins import PluginManager
from metabench.published import compare_published
from metabench.record import EpisodeResults, Record
from metabench.specs import PublishedFigure
from metabench.standings import Row, make_tables
from metabench.stats import DataIntervals, mean_interval

Make = Callable[..., Record]
Results = Callable[..., EpisodeResults]


def rows_of(records: list[Record], results: dict[str, EpisodeResults]) -> list[Row]:
    (table,) = make_tables(records, lambda record: results[record.cell])
    return list(table.rows)


def test_the_most_accurate_is_first_and_the_failed_last(make_record: Make, make_results: Results) -> None:
    means = {"a": 0.5, "b": None, "c": 0.9, "d": 0.0}
    records = [make_record(mean, algorithm=name, cell=name) for name, mean in means.items()]
    results = {name: make_results(mean) for name, mean in means.items() if mean is not None}
    rows = rows_of(records, results)
    assert [(row.algorithm, row.rank) for row in rows] == [("c", 1), ("a", 2), ("d", 3), ("b", None)]
    assert [row.algorithm for row in rows_of(records[::-1], results)] == ["c", "a", "d", "b"]


def test_seeds_are_averaged_episode_by_episode(make_record: Make, make_results: Results) -> None:
    results = {str(seed): make_results(0.5 + 0.1 * seed, noise=seed) for seed in range(3)}
    records = [make_record(0.5 + 0.1 * seed, seed=seed, cell=str(seed)) for seed in range(3)]
    (row,) = rows_of(records, results)
    mean = np.mean([result.accuracies for result in results.values()], axis=0)
    assert row.accuracy == mean_interval(mean)
    assert row.data_ci95 == DataIntervals(results["0"].groups).ci95(mean)
    assert row.seed_ci95 == pytest.approx(mean_interval([0.5, 0.6, 0.7]).ci95)


def test_a_seed_that_failed_is_left_out_of_the_mean(make_record: Make, make_results: Results) -> None:
    records = [make_record(0.5, seed=0, cell="a"), make_record(None, seed=1, cell="b")]
    (row,) = rows_of(records, {"a": make_results(0.5)})
    assert row.accuracy is not None
    assert row.accuracy.mean == pytest.approx(0.5)
    assert [record.cell for record in row.finished] == ["a"]
    assert row.seed_ci95 is None


def test_other_parameters_are_another_row(make_record: Make, make_results: Results) -> None:
    records = [make_record(0.5, cell=name, identity={"params": name}) for name in "ab"]
    assert len(rows_of(records, {name: make_results(0.5) for name in "ab"})) == 2


def test_methods_are_compared_on_the_same_episodes_only(make_record: Make, make_results: Results) -> None:
    records = [
        make_record(0.9, algorithm="best", cell="a"),
        make_record(0.8, algorithm="same", cell="b"),
        make_record(0.7, algorithm="fewer", cell="c"),
        make_record(0.6, algorithm="other", cell="d", identity={"test": {"seed": 7}}),
        make_record(0.5, algorithm="data", cell="e", dataset_fingerprint="0" * 64),
    ]
    results = {record.cell: make_results(record.accuracy and record.accuracy.mean) for record in records}
    results["c"] = make_results(0.7, episodes=50)
    compared = {row.algorithm: row.versus_best is not None for row in rows_of(records, results)}
    assert compared == {"best": False, "same": True, "fewer": False, "other": False, "data": False}


def test_what_ties_with_the_best_shares_its_rank(make_record: Make, make_results: Results) -> None:
    records = [make_record(0.9 - 0.0001 * i, algorithm=f"m{i}", cell=str(i)) for i in range(3)]
    results = {str(i): make_results(0.9 - 0.0001 * i, noise=i) for i in range(3)}
    assert [(row.rank, row.tie) for row in rows_of(records, results)] == [(1, False), (1, True), (1, True)]


# --------------------------------------------------------------------------------------------- published

IDENTITY = {
    "algorithm": {"name": "maml", "params": {"first_order": False}},
    "dataset": {"name": "omniglot"},
    "train": {"steps": 10},
}


def figure(**changes: object) -> PublishedFigure:
    usual = {"algorithm": "maml", "dataset": "omniglot", "way": 5, "shot": 1, "accuracy": 0.987, "source": "Doe"}
    return PublishedFigure(**{**usual, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "reptile"},
        {"dataset": "glyphs"},
        {"way": 20},
        {"shot": 5},
        {"variant": {"algorithm.params.first_order": True}},
        {"variant": {"algorithm.params.missing": 1}},
    ],
)
def test_a_figure_about_something_else_is_not_shown(make_record: Make, changes: dict[str, object]) -> None:
    assert compare_published(make_record(identity=IDENTITY), [figure(**changes)]) is None


def test_the_figure_with_the_nearest_protocol_is_shown(make_record: Make) -> None:
    far = figure(protocol={"train.steps": 60000, "train.meta_batch": 32})
    near = figure(protocol={"train.steps": 10}, variant={"algorithm.params.first_order": False}, notes=["other split"])
    found = compare_published(make_record(identity=IDENTITY), [far, near])
    assert found is not None
    assert found.figure == near
    assert found.differences == ("other split",)
    assert not found.same_protocol


def test_every_built_in_figure_is_a_fraction_with_a_source(plugins: PluginManager) -> None:
    figures = plugins.published_figures()
    assert {entry.algorithm for entry in figures} == {"maml", "reptile", "protonet", "matchingnet", "siamese"}
    for entry in figures:
        assert 0.5 < entry.accuracy < 1
        assert entry.ci95 is None or 0 < entry.ci95 < 0.02
        assert entry.source
        assert entry.link.startswith("https://")
    keys = [(e.algorithm, e.way, e.shot, str(e.variant)) for e in figures]
    assert len(keys) == len(set(keys)) == 28
