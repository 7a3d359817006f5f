"""The results of a cell, as the fields of its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metabench.contracts import Declaration, EngineCost, Place, estimate
from metabench.jobs import EvalMetrics, Latency, TrainMetrics, Usage, Used, Validation, percentiles_ms
from metabench_rl.api import Algorithm
from metabench_rl.cells import Cell
from metabench_rl.pictures import Picture
from metabench_rl.progress import Progress
from metabench_rl.simulator import Simulator
from metabench_rl.testing import Tested


@dataclass(frozen=True)
class Result:
    """The results of a cell.

    Attributes:
        fields: the fields of its record.
        figures: by metric, [n] values of the test tasks.
        groups: [n, 0]: tasks have no classes.
        picture: a picture of the test; None without one.
    """

    fields: Mapping[str, Any]
    figures: Mapping[str, npt.NDArray[np.float64]]
    groups: npt.NDArray[np.int64]
    picture: Picture | None


def measure(
    *,
    cell: Cell,
    algorithm: Algorithm,
    progress: Progress | None,
    tested: Tested,
    testing: Simulator,
    seconds: float,
    used: Used,
    task_seconds: Sequence[float],
    action_seconds: Sequence[float],
    picture: Picture | str | None,
) -> Result:
    """Return the results of a test.

    Args:
        cell: the cell.
        algorithm: the algorithm with the tested weights.
        progress: its training; None of an algorithm that is not trained.
        tested: the values of the tasks.
        testing: the simulator of the test.
        seconds: seconds of the test.
        used: what the test has used.
        task_seconds: seconds of single tasks, one after the other.
        action_seconds: seconds of single actions.
        picture: a picture of the test, or why it could not be drawn; None without one.
    """
    last = cell.adapt.rounds
    figures = {_name(metric, number, last): values for (metric, number), values in tested.figures.items()}
    declarations = {_name(metric, number, last): _declared(metric, number, last) for metric, number in tested.figures}
    ranked = str(testing.family.metrics[0])
    n = cell.tasks.test
    remarks = [f"actions of the test: {cell.eval.actions}, {cell.eval.episodes} episodes of a task in each round"]
    if algorithm.sees_goals:
        remarks.append("an oracle, which sees the goals")
    if isinstance(picture, str):
        remarks.append(f"not drawn: the picture ({picture})")
        picture = None
    parameters = sum(parameter.numel() for parameter in algorithm.parameters())
    latency = Latency(**percentiles_ms(list(task_seconds)))
    fields = {
        "ranked_by": ranked,
        "metrics": {ranked: estimate(figures[ranked]), **{name: estimate(values) for name, values in figures.items()}},
        "declarations": {ranked: declarations[ranked], **declarations},
        "remarks": remarks,
        "train": None if progress is None else _training(progress, algorithm),
        "eval": EvalMetrics(
            seconds=seconds, episodes_per_second=n / seconds, latency_ms=latency, usage=Usage.model_validate(vars(used))
        ),
        "costs": _costs(progress, testing.steps / n, action_seconds),
        "parameters": parameters,
        "all_parameters": parameters,
        "peak_memory_bytes": progress.peak_memory_bytes if progress else None,
    }
    return Result(fields, figures, np.empty((n, 0), np.int64), picture)


def _name(metric: str, number: int, last: int) -> str:
    """Return the name of a metric in a round: that of the last round is the metric's own."""
    return metric if number == last else f"{metric}_{number}"


def _declared(metric: str, number: int, last: int) -> Declaration:
    if number == last:
        title, when = metric, f"after {last} rounds of adaptation"
    elif number == 0:
        title, when = f"{metric} before", "before any adaptation"
    else:
        title, when = f"{metric} after {number}", f"after round {number} of adaptation"
    place = Place(curve=metric, axis="rounds of adaptation", at=number)
    if metric == "success":
        summary = f"share of the test episodes that reach the goal at any step, {when}"
        return Declaration(title=title, unit="%", scale=100.0, lowest=0.0, highest=1.0, summary=summary, place=place)
    return Declaration(title=title, summary=f"sum of the rewards of a test episode, {when}", place=place)


def _training(progress: Progress, algorithm: Algorithm) -> TrainMetrics:
    tasks = progress.updates * algorithm.tasks_per_update
    return TrainMetrics(
        steps=progress.updates,
        episodes=tasks,
        seconds=progress.seconds,
        episodes_per_second=tasks / progress.seconds,
        best_step=progress.best_update or progress.updates,
        validation=[Validation(step=step, value=value) for step, value in progress.curve],
        usage=Usage.model_validate(progress.used),
    )


def _costs(progress: Progress | None, of_test: float, action_seconds: Sequence[float]) -> dict[str, EngineCost]:
    """Return the costs that the core does not know."""
    costs = {
        "test_steps": EngineCost(
            title="steps/task", value=of_test, summary="environment steps of a test task, adaptation and test episodes"
        ),
        "action_ms": EngineCost(
            title="action ms",
            value=percentiles_ms(list(action_seconds))["p50"],
            summary="median milliseconds to choose an action, of one episode alone",
        ),
    }
    if progress is None:
        return costs
    return {
        "env_steps": EngineCost(
            title="env steps",
            value=progress.steps,
            summary="environment steps of the training, those of inner loops and validations included",
        ),
        "simulation_seconds": EngineCost(
            title="simulation s",
            value=progress.simulation_seconds,
            summary="seconds of the updates within environments",
        ),
        "learning_seconds": EngineCost(
            title="learning s",
            value=progress.seconds - progress.simulation_seconds,
            summary="other seconds of the updates: choosing actions and learning",
        ),
        **costs,
    }
