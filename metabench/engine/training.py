"""Train a cell, and select its weights by validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from metabench.api import Algorithm, Split
from metabench.data.sampler import EpisodeShape
from metabench.engine.advice import testing_memory
from metabench.engine.checkpoints import CheckpointClock, TrainingProgress, load_checkpoint, save_checkpoint
from metabench.engine.evaluation import evaluate
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.streams import EpisodeStream, training_stream, validation_stream
from metabench.errors import CellFailed
from metabench.machine.clock import Stopwatch
from metabench.machine.memory import BatchSize, PeakMemory
from metabench.machine.reproducible import derive_seed, seed_generators
from metabench.planning.plan import Cell, Training
from metabench.registry.configs import short

#: Number of untimed first steps of a process, in which allocators and kernels warm up.
WARM_UP_STEPS = 3
#: Number of steps between readings of the loss; each reading waits for the device.
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
    """Train or resume an algorithm, and load its best weights.

    The best weights are selected by validation accuracy in episodes of the cell's test shape. A finished training for
    several test shapes stays in its checkpoint, from which the other cells load their weights without training.

    Args:
        cell: the cell.
        algorithm: the algorithm with its initial weights.
        splits: the splits of its dataset.
        device: the device that it runs on.
        checkpoint: see `metabench.engine.cell.run_cell`, also for `origin`, `shapes` and `watcher`.
        memory: the peak memory since the algorithm was built.

    Raises:
        CellFailed: the loss or a score is not finite.
        Interrupted: `watcher` asked to stop.
        StoreError: a checkpoint cannot be written or read.
    """
    steps = cell.train.steps
    stream = training_stream(cell, splits, device)
    progress = load_checkpoint(algorithm, checkpoint, origin, cell.shape) or TrainingProgress.of(shapes)
    loaded = progress.step, progress.validated
    validations = {
        shape: (episodes, BatchSize(device, cell.test.batch or episodes.at_once))
        for shape in progress.selections
        for episodes in [validation_stream(cell, splits, shape, device)]
    }
    selection = progress.selections[cell.shape]
    watch = Stopwatch(device, progress.seconds)
    timed_from = progress.step + WARM_UP_STEPS
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
            first, timed = progress.step, progress.step >= timed_from
            until = min(_next_pause(first, cell.train.validate_every, steps), steps if timed else timed_from)
            with (watch if timed else Stopwatch(device)).running():
                loss = _train_steps(cell, algorithm, stream, progress, until, watcher, clock)
            progress.timed_steps += (progress.step - first) * timed
            progress.seconds = watch.seconds
            if not np.isfinite(loss):
                raise CellFailed(
                    f"training diverged: the loss is {loss} after step {progress.step} of {steps}. "
                    "Lower the learning rates, or clip the gradient"
                )
            best = f", val {selection.best_accuracy:.1%}" if selection.validation else ""
            watcher.advance(progress.step, f"loss {loss:.3f}{best}")
            if watcher.should_stop():
                raise Interrupted
            if clock.is_due:
                save()
    except Interrupted:
        save()
        raise
    if loaded != (progress.step, progress.validated):
        save()
    algorithm.load_state_dict(selection.best_state)
    progress.forget_weights()
    return progress


def _validate(
    cell: Cell,
    algorithm: Algorithm,
    validations: dict[EpisodeShape, tuple[EpisodeStream, BatchSize]],
    watcher: Watcher,
) -> dict[EpisodeShape, float]:
    """Return the validation accuracy of the current weights for each test shape.

    If the validation of another cell's shape fails, the shape is dropped from `validations`: that cell trains on its
    own, and fails with its own reason.
    """
    accuracies: dict[EpisodeShape, float] = {}
    count = cell.train.validation_episodes
    for shape, (episodes, batch) in list(validations.items()):
        watcher.phase("validate" if len(validations) == 1 else f"validate {shape.shot}-shot", count)
        try:
            with testing_memory(cell):
                accuracies[shape] = float(
                    evaluate(algorithm, episodes, count, batch, cell.train.validation_seed, watcher).mean()
                )
        except Interrupted:
            raise
        except Exception:
            if shape == cell.shape:
                raise
            del validations[shape]
    return accuracies


def _validation_is_due(progress: TrainingProgress, train: Training) -> bool:
    """Return whether the current weights must be validated now."""
    step = progress.step
    due = step > 0 and (step % train.validate_every == 0 or step == train.steps)
    return due and step != progress.validated


def _next_pause(step: int, validate_every: int, steps: int) -> int:
    """Return the next step at which the loss is read or the algorithm validated."""
    return min(steps, *((step // every + 1) * every for every in (LOSS_EVERY, validate_every)))


def _loss(metrics: object) -> torch.Tensor:
    """Return the loss of `Algorithm.train_step`.

    Raises:
        CellFailed: it is no scalar tensor.
    """
    loss = metrics.get("loss") if isinstance(metrics, Mapping) else None
    if isinstance(loss, torch.Tensor) and loss.numel() == 1 and not loss.is_complex():
        return loss.detach()
    returned = f"{tuple(loss.shape)} tensor" if isinstance(loss, torch.Tensor) else short(metrics)
    raise CellFailed(f"train_step must return {{'loss': a scalar tensor}}; it returned {returned}")


def _train_steps(
    cell: Cell,
    algorithm: Algorithm,
    stream: EpisodeStream,
    progress: TrainingProgress,
    until: int,
    watcher: Watcher,
    clock: CheckpointClock,
) -> float:
    """Make the outer updates up to step `until`; return the last loss.

    The loop ends earlier to stop or to write a checkpoint. It reads no result back from the device.
    """
    algorithm.train()
    batch = cell.train.meta_batch
    loss = torch.zeros(())
    while progress.step < until:
        # Each step has its own seed, so that a resumed run makes the same step.
        seed_generators(derive_seed(cell.seed, f"train {progress.step}"))
        loss = _loss(algorithm.train_step(stream.batch(progress.step * batch, batch)))
        progress.step += 1
        watcher.advance(progress.step)
        if watcher.should_stop() or clock.is_due:
            break
    return float(loss)
