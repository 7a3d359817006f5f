"""One training of a trial, with the validation of its cells, as the work of a worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from metabench.contracts import Problem
from metabench.engine.learner import Learner
from metabench.engine.progress import Curve, Judge, Pruned, Watcher
from metabench.engine.validating import validate, without_tests
from metabench.executors.job import TrainingJob
from metabench.records.trained import Trained


@dataclass(frozen=True)
class Validated:
    """The result of a training of a trial.

    Attributes:
        values: per-episode values of the metric that ranks, by cell.
        curve: the validations of the training; empty if nothing is trained.
    """

    values: Mapping[str, list[float]]
    curve: Curve


@dataclass(frozen=True)
class Hopeless:
    """The result of a training that was ended early.

    Attributes:
        curve: its validations.
    """

    curve: Curve


@dataclass(frozen=True)
class TrialJob:
    """The work of one worker (`metabench.executors.processes.Job`): train, and validate; nothing is tested.

    Attributes:
        job: the training and its cells.
        episodes: number of validation episodes where nothing is trained.
        seed: their seed.
        judge: may end the training early; None lets it end.
    """

    job: TrainingJob
    episodes: int
    seed: int
    judge: Judge | None = None

    def run(self, watcher: Watcher) -> Iterator[Validated | Hopeless | Problem]:
        """Yield the result.

        Raises:
            Interrupted: the watcher asked for it.
            StoreError: a checkpoint or weights cannot be written or read.
        """
        plugins, datasets = self.job.loaded()
        held_out = without_tests(datasets)

        def work() -> Validated:
            learner = self.job.learner(plugins, held_out, watcher, self.judge)
            values = {
                cell.id: validate(learner, cell, self.episodes, self.seed, watcher).tolist() for cell in self.job.cells
            }
            return Validated(values, _curve(learner, self.job))

        try:
            yield self.job.tried(work, watcher, self.job.key)
        except Pruned as ended:
            yield Hopeless(ended.curve)


def _curve(learner: Learner, job: TrainingJob) -> Curve:
    """Return the validations of a training, mean over its selections."""
    trained: Trained | None = learner.trained
    points: dict[int, list[float]] = {}
    for selection in job.selections if trained else ():
        snapshot = trained.snapshots.get(selection.name) if trained else None
        for point in snapshot.validation if snapshot and not snapshot.problem else ():
            points.setdefault(point.step, []).append(point.value)
    return [(step, sum(values) / len(values)) for step, values in points.items()]
