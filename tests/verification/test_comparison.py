"""What counts as the same result, on the same kind of machine and on another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from metabench.records.record import EpisodeResults, Record
from metabench.verification.comparison import TOLERANCE, differences, not_computed


def with_one_query_in(results: EpisodeResults, queries: int) -> EpisodeResults:
    """Return results in which one query in so many has another answer."""
    values = results.figures["accuracy"].copy()
    values[3] -= len(values) / queries
    return replace(results, figures={"accuracy": values})


@pytest.mark.parametrize(("queries", "exact", "same"), [(7500, True, False), (7500, False, True), (300, False, False)])
def test_one_query_in_thousands_is_rounding_on_another_machine_only(
    make_record: Callable[..., Record],
    make_results: Callable[..., EpisodeResults],
    queries: int,
    exact: bool,
    same: bool,
) -> None:
    record, results = make_record(), make_results(0.9)
    found = differences(record, record, results, with_one_query_in(results, queries), exact)
    assert (not found) == same
    for line in found:
        assert "accuracy: other figures in 1 of 100 episodes, first in episode 3" in line


def test_the_tolerance_is_one_query_in_five_hundred_of_a_perfect_method() -> None:
    assert pytest.approx(1 / 500) == TOLERANCE


def test_other_episodes_differ_on_every_machine(
    make_record: Callable[..., Record], make_results: Callable[..., EpisodeResults]
) -> None:
    record, results = make_record(), make_results(0.9)
    groups = results.groups.copy()
    groups[0, 0] += 1
    assert differences(record, record, results, replace(results, groups=groups), exact=False) == [
        "groups of the episodes differ: they are other episodes"
    ]


def test_a_setting_that_differs_is_named_with_both_values(
    make_record: Callable[..., Record], make_results: Callable[..., EpisodeResults]
) -> None:
    results = make_results(0.9)
    found = differences(make_record(shot=5), make_record(shot=1), results, results, exact=False)
    assert found == ["shot is 5 in the record, and 1 here"]


def test_a_field_that_an_earlier_version_did_not_write_is_not_compared(
    make_record: Callable[..., Record], make_results: Callable[..., EpisodeResults]
) -> None:
    results = make_results(0.9)
    assert differences(make_record(), make_record(floor=True, pretrained_on="x"), results, results, exact=True) == []


def test_metrics_that_cannot_be_computed_here_are_named(make_record: Callable[..., Record]) -> None:
    record = make_record()
    margin = record.metrics["accuracy"]
    further = record.model_copy(update={"metrics": {**record.metrics, "margin": margin}})
    assert not_computed(further, record) == ["margin"]


def test_metrics_that_may_be_computed_from_kept_outputs_have_their_precision(
    make_record: Callable[..., Record], make_results: Callable[..., EpisodeResults]
) -> None:
    record, results = make_record(), make_results(0.9)
    other = with_one_query_in(results, 7500)
    assert differences(record, record, results, other, exact=True, scored=["accuracy"]) == []
