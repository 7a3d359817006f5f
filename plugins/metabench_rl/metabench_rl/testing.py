"""Test policies on tasks: before any adaptation, and after each round."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from metabench.jobs import CellFailed
from metabench_rl.api import Algorithm, Policy, Split, TaskFamily, Tasks, Trajectories
from metabench_rl.cells import Cell
from metabench_rl.simulator import Rollouts, Simulator

#: Tasks whose latency is measured.
_TIMED_TASKS = 3
#: Told of the tasks done and of all; may raise to stop.
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Tested:
    """The results of a test.

    Attributes:
        figures: by metric and round, [n] values of the tasks.
        first: the last test episodes of the first tasks, and
        goals: [b, G] their goals, for a picture.
    """

    figures: dict[tuple[str, int], npt.NDArray[np.float64]]
    first: Sequence[Trajectories]
    goals: torch.Tensor


def test(algorithm: Algorithm, simulator: Simulator, cell: Cell, advance: Advance) -> Tested:
    """Return the values of each test task in every round.

    Raises:
        CellFailed: a value is no number.
    """
    return _tested(algorithm, simulator, cell, "test", range(cell.tasks.test), range(cell.adapt.rounds + 1), advance)


def validate(algorithm: Algorithm, simulator: Simulator, cell: Cell, advance: Advance) -> float:
    """Return the metric that ranks, mean over the validation tasks after the last round; high values are better."""
    rounds = [cell.adapt.rounds]
    found = _tested(algorithm, simulator, cell, "validation", range(cell.tasks.validation), rounds, advance)
    return float(found.figures[simulator.family.metrics[0], cell.adapt.rounds].mean())


def _tested(
    algorithm: Algorithm,
    simulator: Simulator,
    cell: Cell,
    split: Split,
    numbers: Sequence[int],
    measured: Sequence[int],
    advance: Advance,
) -> Tested:
    family, at_once = simulator.family, simulator.family.at_once
    values: dict[tuple[str, int], list[torch.Tensor]] = {(m, r): [] for m in family.metrics for r in measured}
    first: list[Trajectories] = []
    for begin in range(0, len(numbers), at_once):
        advance(begin, len(numbers))
        tasks = family.tasks(split, numbers[begin : begin + at_once])
        rounds = _Rounds(algorithm, simulator, cell, tasks)
        for number in range(cell.adapt.rounds + 1):
            if number:
                rounds.adapt(number)
            if number in measured:
                episodes = rounds.episodes(number, cell.eval.episodes)
                for metric in family.metrics:
                    measures = episodes.measured(metric)
                    _check_finite(measures, metric, tasks, number)
                    values[metric, number].append(measures)
                if not begin:
                    first.append(episodes)
    advance(len(numbers), len(numbers))
    goals = family.tasks(split, numbers[:at_once]).goals
    return Tested({key: torch.cat(parts).numpy() for key, parts in values.items()}, first, goals)


def _check_finite(values: torch.Tensor, metric: str, tasks: Tasks, number: int) -> None:
    """Check that a metric of each task is a number.

    Raises:
        CellFailed: it is none: the policy has diverged.
    """
    if not values.isfinite().all():
        task = tasks.numbers[int(values.isfinite().logical_not().nonzero()[0])]
        after = f"after round {number} of adaptation" if number else "before any adaptation"
        raise CellFailed(f"the {metric} of {tasks.split} task {task} {after} is no number: lower inner_lr or lr")


class _Rounds:
    """The rounds of some tasks.

    The noise of actions is a function of task, phase and episode, so that all methods meet the same.
    """

    def __init__(self, algorithm: Algorithm, simulator: Simulator, cell: Cell, tasks: Tasks) -> None:
        self._algorithm, self._simulator, self._cell, self._tasks = algorithm, simulator, cell, tasks
        self._key = "|".join([json.dumps(simulator.family.identity, sort_keys=True), tasks.split, str(cell.eval.seed)])
        self._policy: Policy = algorithm.policy(algorithm.shown(tasks))

    def adapt(self, number: int) -> None:
        """Let the algorithm adapt once more, from no more episodes than a round has."""
        key = f"{self._key}|adapt|{number}"
        collect = Rollouts(self._simulator, self._tasks, key, allowed=self._cell.adapt.episodes)
        self._policy = self._algorithm.adapt(self._policy, collect, number - 1)

    def episodes(self, number: int, count: int) -> Trajectories:
        """Return test episodes after a round, which the algorithm does not see."""
        greedy = self._cell.eval.actions == "greedy"
        collect = Rollouts(self._simulator, self._tasks, f"{self._key}|test|{number}", greedy)
        return collect(self._policy, count)


def action_seconds(algorithm: Algorithm, family: TaskFamily) -> list[float]:
    """Return the seconds of each action of one episode of one task; its steps are counted nowhere."""
    alone = Simulator(family)
    tasks = family.tasks("validation", [0])
    Rollouts(alone, tasks, "latency")(algorithm.policy(algorithm.shown(tasks)), 1)
    return alone.action_seconds


def task_seconds(algorithm: Algorithm, family: TaskFamily, cell: Cell) -> list[float]:
    """Return the seconds of some tasks alone: of all rounds of adaptation, and of one episode after them."""
    seconds = []
    for number in range(_TIMED_TASKS):
        begun = time.perf_counter()
        rounds = _Rounds(algorithm, Simulator(family), cell, family.tasks("validation", [number]))
        for done in range(cell.adapt.rounds):
            rounds.adapt(done + 1)
        rounds.episodes(cell.adapt.rounds, 1)
        seconds.append(time.perf_counter() - begun)
    return seconds
