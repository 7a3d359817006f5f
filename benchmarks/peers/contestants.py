"""What a worker is given to do, and the settings that all contestants share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: Of every line: the episode, and the batch that metabench is given in evaluations.
WAY, SHOT, QUERIES = 5, 1, 15
EVALUATION_BATCH = 8
#: Of the MAML lines. `suite.yaml` says the same to metabench; the check for agreement would show a difference.
TASKS, INNER_RATE, TEST_INNER_STEPS, OUTER_RATE = 16, 0.4, 5, 1e-3
#: Meta-batches that are prepared where data is not part of the line; contestants go round them.
PREPARED_BATCHES = 4
#: Tasks whose first results are compared with the textbook's.
CHECKED_TASKS = 4


@dataclass(frozen=True)
class Contestant:
    """One participant of one line, ready to work.

    Attributes:
        work: does one piece of work, and returns how many episodes (or tasks, or operations) it was.
        check: the numbers that all contestants of the line should agree on, before any work was done.
        accuracies: the accuracies of so many episodes.
        count_flops: the floating-point operations of one episode.
    """

    work: Callable[[], int]
    check: Callable[[], list[float]] | None = None
    accuracies: Callable[[int], list[float]] | None = None
    count_flops: Callable[[], float] | None = None
