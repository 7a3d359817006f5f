"""Trains a cell, and chooses by validation among the weights that it comes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from metabench.api import Algorithm, Split
from metabench.data.sampler import EpisodeShape
from metabench.engine.checkpoints import CheckpointClock, TrainingProgress, load_checkpoint, save_checkpoint
from metabench.engine.evaluation import evaluate
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.streams import EpisodeStream, training_stream, validation_stream
from metabench.errors import CellFailed
from metabench.machine.clock import Stopwatch
from metabench.machine.memory import BatchSize, PeakMemory
from metabench.machine.reproducible import derive_seed
from metabench.planning.plan import Cell, Training

#: Steps at the start of a process whose time is not counted: allocators and kernels warm up.
WARM_UP_STEPS = 3
#: Steps between looks at the loss; each look waits for the device.
LOSS_EVERY = 10


def train(
    cell: Cell,
    algorithm: Algorithm,
    splits: Mapping[str, Split],
    device: torch.device,
    checkpoint: Path,
    origin: Mapping[str, str],
    shapes: Sequence[EpisodeShape],
    memory: PeakMemory,
    watcher: Watcher,
) -> TrainingProgress:
    """Train to the end, from the checkpoint if there is one, then load the weights that validated best for this cell.

    Where a training for several shapes of test episodes is at its end, the other cells load their weights from its
    checkpoint, and need not train.

    Args:
        cell: what is trained.
        algorithm: with its initial weights.
        splits: of its dataset.
        device: where it is.
        checkpoint: see `metabench.engine.cell.run_cell`; so are `origin`, `shapes` and `watcher`.
        memory: in use since the algorithm was built.

    Raises:
        CellFailed: the loss or a score is not finite.
        Interrupted: `watcher` asked for it.
        StoreError: a checkpoint cannot be written or read.
    """
    steps = cell.train.steps
    stream = training_stream(cell, splits, device)
    progress = load_checkpoint(algorithm, checkpoint, origin, cell.shape) or TrainingProgress.of(shapes)
    begun = progress.step, progress.validated
    validations = {
        shape: (validation_stream(cell, splits, shape, device), BatchSize(device, cell.test.batch))
        for shape in progress.selections
    }
    own = progress.selections[cell.shape]
    watch = Stopwatch(device, progress.seconds)
    warm = progress.step + WARM_UP_STEPS
    clock = CheckpointClock()

    def save() -> None:
        progress.peak_memory_bytes = max(progress.peak_memory_bytes, memory.bytes())
        with clock.writing():
            save_checkpoint(algorithm, progress, origin, checkpoint)

    watcher.phase("train", steps, progress.step)
    try:
        while True:
            if _validation_is_due(progress, cell.train):
                accuracies = _validate(cell, algorithm, validations, watcher)
                progress.note(accuracies, algorithm)
                watcher.phase("train", steps, progress.step)
            if progress.step == steps:
                break
            first, timed = progress.step, progress.step >= warm
            until = min(_next_pause(first, cell.train.validate_every, steps), steps if timed else warm)
            with (watch if timed else Stopwatch(device)).running():
                loss = _meta_steps(cell, algorithm, stream, progress, until, watcher, clock)
            progress.timed_steps += (progress.step - first) * timed
            progress.seconds = watch.seconds
            if not np.isfinite(loss):
                raise CellFailed(
                    f"training diverged: the loss is {loss} after step {progress.step} of {steps}. "
                    "Lower the learning rates, or clip the gradient"
                )
            best = f", val {own.best_accuracy:.1%}" if own.validation else ""
            watcher.advance(progress.step, f"loss {loss:.3f}{best}")
            if watcher.should_stop():
                raise Interrupted
            if clock.is_due:
                save()
    except Interrupted:
        save()
        raise
    if begun != (progress.step, progress.validated):
        save()
    algorithm.load_state_dict(own.best_state)
    progress.forget_weights()
    return progress


def _validate(
    cell: Cell,
    algorithm: Algorithm,
    validations: dict[EpisodeShape, tuple[EpisodeStream, BatchSize]],
    watcher: Watcher,
) -> dict[EpisodeShape, float]:
    """Return the accuracy of the present weights in validation episodes of each shape.

    A shape of other cells in which that fails is dropped: they train by themselves, and fail by themselves.
    """
    accuracies: dict[EpisodeShape, float] = {}
    count = cell.train.validation_episodes
    for shape, (episodes, batch) in list(validations.items()):
        watcher.phase("validate" if len(validations) == 1 else f"validate {shape.shot}-shot", count)
        try:
            accuracies[shape] = float(evaluate(algorithm, episodes, count, batch, cell.test.seed, watcher).mean())
        except Interrupted:
            raise
        except Exception:
            if shape == cell.shape:
                raise
            del validations[shape]
    return accuracies


def _validation_is_due(progress: TrainingProgress, train: Training) -> bool:
    """Return whether the present weights are to be validated, and have not been."""
    step = progress.step
    due = step > 0 and (step % train.validate_every == 0 or step == train.steps)
    return due and step != progress.validated


def _next_pause(step: int, validate_every: int, steps: int) -> int:
    """Return the step after `step` at which the loss is looked at, or the algorithm validated."""
    return min(steps, *((step // every + 1) * every for every in (LOSS_EVERY, validate_every)))


def _meta_steps(
    cell: Cell,
    algorithm: Algorithm,
    stream: EpisodeStream,
    progress: TrainingProgress,
    until: int,
    watcher: Watcher,
    clock: CheckpointClock,
) -> float:
    """Make the outer updates up to `until`, or fewer to stop or to write a checkpoint; return the last loss.

    No result is read back from the device within the loop.
    """
    algorithm.train()
    batch = cell.train.meta_batch
    loss = torch.zeros(())
    while progress.step < until:
        # A step starts from a seed of its own, so that it is the same step after a resume.
        torch.manual_seed(derive_seed(cell.seed, f"train {progress.step}"))
        loss = algorithm.meta_step(stream.batch(progress.step * batch, batch))["loss"]
        progress.step += 1
        watcher.advance(progress.step)
        if watcher.should_stop() or clock.is_due:
            break
    return float(loss)
