from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metabench.errors import StoreError
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store
from metabench.records.tallies import Tallies

Make = Callable[..., Record]
MakeResults = Callable[..., EpisodeResults]


def tallies(**changes: object) -> Tallies:
    made = Tallies(
        names=["a/ä", "b", "c"],
        episodes=np.array([4, 2, 1]),
        accuracy=np.array([0.5, 1.0, 0.0]),
        confusions=np.array([[0, 1, 7], [2, 0, 1]]),
        reliability=np.arange(90.0).reshape(2, 3, 15),
    )
    return replace(made, **changes)


def stored(folder: Path, record: Record, results: EpisodeResults) -> Store:
    store = Store(folder)
    store.write(record, results)
    return store


def equal(one: Tallies, other: Tallies) -> bool:
    return all(np.array_equal(vars(one)[name], vars(other)[name]) for name in vars(one))


def test_totals_are_kept_with_the_results(tmp_path: Path, make_record: Make, make_results: MakeResults) -> None:
    record, results = make_record(0.9), replace(make_results(0.9), tallies=tallies())
    store = stored(tmp_path, record, results)
    found = store.tallies(record.cell)
    assert found is not None
    assert equal(found, tallies())
    read = store.episodes(record)
    assert read.tallies is None, "tables do not need them"
    assert np.array_equal(read.figures["accuracy"], results.figures["accuracy"])


def test_results_without_totals_have_none(tmp_path: Path, make_record: Make, make_results: MakeResults) -> None:
    record = make_record(0.9)
    assert stored(tmp_path, record, make_results(0.9)).tallies(record.cell) is None


def test_totals_of_two_parts_are_added_class_by_class() -> None:
    later = tallies(
        names=["b", "d"],
        episodes=np.array([2, 1]),
        accuracy=np.array([0.5, 0.25]),
        confusions=np.array([[0, 1, 3]]),
    )
    joined = tallies().followed_by(later)
    by_name = dict(zip(joined.names, zip(joined.episodes.tolist(), joined.accuracy.tolist(), strict=True), strict=True))
    assert by_name == {"a/ä": (4, 0.5), "b": (4, 0.75), "c": (1, 0.0), "d": (1, 0.25)}
    pairs = {(joined.names[true], joined.names[wrong]): count for true, wrong, count in joined.confusions.tolist()}
    assert pairs == {("a/ä", "b"): 7, ("c", "a/ä"): 1, ("b", "d"): 3}
    assert np.array_equal(joined.reliability, 2 * tallies().reliability)


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy": np.array([0.5, 1.5, 0.0])},
        {"accuracy": np.array([0.5, np.nan, 0.0])},
        {"episodes": np.array([4, 2])},
        {"confusions": np.array([[0, 3, 1]])},
        {"reliability": np.zeros((2, 2, 15))},
        {"names": np.array(["a", "b", None], dtype=object)},
    ],
)
def test_impossible_totals_are_named(
    tmp_path: Path, make_record: Make, make_results: MakeResults, changes: dict[str, object]
) -> None:
    record = make_record(0.9)
    store = stored(tmp_path, record, replace(make_results(0.9), tallies=tallies(**changes)))
    with pytest.raises(StoreError, match="cannot read the totals"):
        store.tallies(record.cell)
