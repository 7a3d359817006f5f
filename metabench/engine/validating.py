"""Validate the weights that a cell would test; no test image is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from metabench.analysis.stats import Floats
from metabench.data.packing import LoadedDataset
from metabench.engine.advice import testing_memory
from metabench.engine.evaluation import evaluate
from metabench.engine.learner import Learner, computing
from metabench.engine.progress import Watcher
from metabench.engine.streams import validation_stream
from metabench.engine.trial import set_batchings
from metabench.machine.memory import BatchSize
from metabench.planning.cells import Cell


def without_tests(datasets: Mapping[str, LoadedDataset]) -> dict[str, LoadedDataset]:
    """Return the datasets with the validation split in the place of the test split, which nothing can then read."""
    return {
        label: replace(data, splits={**data.splits, "test": data.splits["val"]}) for label, data in datasets.items()
    }


def validate(learner: Learner, cell: Cell, episodes: int, seed: int, watcher: Watcher) -> Floats:
    """Return the [episodes] values of the metric that ranks, in the validation episodes of a cell.

    Args:
        learner: the learner of the cell's training, on datasets that need no test split (`without_tests`).
        cell: the cell, whose test-time parameters, head and weights are validated.
        episodes: number of validation episodes; a training with a schedule has its own.
        seed: seed of the validation episodes, likewise.
        watcher: sees the progress, and may ask to stop.

    Raises:
        CellFailed: the split is too small, the weights do not fit, a score is not finite, or memory is too small.
        Interrupted: `watcher` asked to stop.
        StoreError: the weights cannot be read.
        Unfit: validation images and training images differ in shape.
    """
    training, schedule, shape = learner.training, learner.training.schedule, cell.selection.shape
    if schedule is not None:
        episodes, seed = schedule.validation_episodes, schedule.validation_seed
    on = cell.selection.on or training.dataset
    validated = replace(cell, test=replace(cell.test, dataset=on, shape=shape, file=None))
    with computing(training, learner.device), testing_memory(shape, training):
        ready = learner.ready(validated, watcher)
        stream = validation_stream(seed, ready.splits, shape, learner.device)
        if not cell.is_trained_by_itself or learner.trained is None:
            set_batchings(ready.algorithm, stream.batch(0, 1 if stream.varies else 2), trains=False)
        batch = BatchSize(learner.device, cell.test.batch or stream.at_once)
        watcher.phase("validate", episodes)
        values: Floats = evaluate(ready.algorithm, stream, episodes, batch, seed, watcher).mean(axis=1)
    return values
