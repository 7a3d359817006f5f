"""Jobs: trainings with the cells that test them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from metabench.planning.cells import Cell, Selection, Training, sharing_a_training


@dataclass(frozen=True)
class Job:
    """One training and the cells that test it.

    Attributes:
        training: the training.
        cells: the cells to test; none if only other trainings need its weights.
        selections: all selections that a suite needs of it.
    """

    training: Training
    cells: Sequence[Cell]
    selections: Sequence[Selection]


def make_jobs(plan: Iterable[Cell], cells: Iterable[Cell], has_weights: Callable[[Training], bool]) -> list[Job]:
    """Return the jobs that give the cells a result; a job comes after those that it needs.

    Args:
        plan: all cells of the suite, which decide what a training selects: its weights then do not depend on the part
            of the suite that runs first.
        cells: the cells that need a result.
        has_weights: returns whether the weights of a training are kept.
    """
    waiting = sharing_a_training(cells)
    selections: dict[str, dict[Selection, None]] = {}
    for cell in plan:
        selections.setdefault(cell.training.id, {})[cell.selection] = None
    jobs: dict[str, Job] = {}

    def add(training: Training) -> None:
        if training.id in jobs:
            return
        for needed in training.needs:
            if needed.id in waiting or not has_weights(needed):
                add(needed)
        tests = waiting.get(training.id, [])
        wanted = dict.fromkeys([*selections.get(training.id, {}), *(cell.selection for cell in tests)])
        jobs[training.id] = Job(training, tests, list(wanted))

    for sharing in waiting.values():
        add(sharing[0].training)
    return list(jobs.values())
