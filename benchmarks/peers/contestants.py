"""Define a contestant, and the settings that all contestants share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: Shape of the episodes of all lines, and metabench's batch in evaluations.
WAY, SHOT, QUERIES = 5, 1, 15
EVALUATION_BATCH = 8
#: Settings of the MAML lines. `suite.yaml` repeats them for metabench; the check would show a difference.
TASKS, INNER_RATE, TEST_INNER_STEPS, OUTER_RATE = 16, 0.4, 5, 1e-3
#: Number of meta-batches prepared for lines without data; contestants cycle through them.
PREPARED_BATCHES = 4
#: Number of tasks whose first results are compared with the reference's.
CHECKED_TASKS = 4


@dataclass(frozen=True)
class Contestant:
    """One library's implementation of one line, ready to work.

    Attributes:
        work: does one piece of work; returns its number of episodes (or tasks, or operations).
        check: returns numbers on which all contestants of the line should agree, before any work.
        accuracies: returns the accuracies of a given number of episodes.
        count_flops: returns the floating-point operations of one episode.
    """

    work: Callable[[], int]
    check: Callable[[], list[float]] | None = None
    accuracies: Callable[[int], list[float]] | None = None
    count_flops: Callable[[], float] | None = None
