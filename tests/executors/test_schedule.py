"""The order in which several jobs at once start."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metabench.executors.schedule import starting_order

times = st.lists(st.floats(0, 1e4), max_size=12)


def end(order: Sequence[int], seconds: Sequence[float], at_once: int) -> float:
    """Return when all have ended, if each of `order` starts as soon as another has ended."""
    ends = [0.0] * at_once
    for job in order:
        heapq.heapreplace(ends, ends[0] + seconds[job])
    return max(ends)


def longest_first(seconds: Sequence[float]) -> list[int]:
    return sorted(range(len(seconds)), key=lambda job: -seconds[job])


@given(times, st.integers(1, 5))
def test_every_job_starts_once(seconds: list[float], at_once: int) -> None:
    assert sorted(starting_order(seconds, at_once)) == list(range(len(seconds)))


@given(times, st.integers(1, 5))
def test_all_end_no_later_than_with_the_longest_first(seconds: list[float], at_once: int) -> None:
    limit = end(longest_first(seconds), seconds, at_once) * (1 + 1e-9)
    assert end(starting_order(seconds, at_once), seconds, at_once) <= limit


@pytest.mark.parametrize(
    ("seconds", "at_once", "best"),
    [
        ([3, 3, 2, 2, 2], 2, 6),  # 7 with the longest first
        ([363, 209, 208, 205, 177, 168, 141, 117, 106, 80], 2, 888),  # 922 with the longest first
    ],
)
def test_jobs_of_similar_length_end_together(seconds: list[float], at_once: int, best: float) -> None:
    assert end(starting_order(seconds, at_once), seconds, at_once) == best
    assert end(longest_first(seconds), seconds, at_once) > best


def test_the_longest_of_those_that_follow_one_another_starts_first() -> None:
    assert starting_order([1, 2, 3], 1) == [2, 1, 0]


def test_of_very_many_jobs_the_longest_start_first() -> None:
    seconds = [float(i % 7) for i in range(500)]
    order = starting_order(seconds, 4)
    assert [seconds[job] for job in order] == sorted(seconds, reverse=True)
