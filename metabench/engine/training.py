"""Train an algorithm, and select its weights by validation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from metabench.analysis.metrics import OF_TASK
from metabench.api import Algorithm, Classification, Episodes, Images, SourceSplit, Split
from metabench.engine.advice import testing_memory
from metabench.engine.checkpoints import CheckpointClock, TrainingProgress, load_checkpoint, save_checkpoint
from metabench.engine.evaluation import evaluate
from metabench.engine.progress import Interrupted, Judge, Pruned, Watcher
from metabench.engine.steps import steps_of, training_batches
from metabench.engine.streams import Stream, validation_stream
from metabench.errors import CellFailed, in_one_line
from metabench.machine.clock import Stopwatch
from metabench.machine.memory import BatchSize, PeakMemory
from metabench.machine.meter import Meter, Used
from metabench.machine.reproducible import derive_seed, seed_generators
from metabench.planning.cells import Schedule, Selection, Training
from metabench.records.measured import Declaration
from metabench.registry.configs import short, with_params

#: Number of untimed first steps of a process, in which allocators and kernels warm up.
WARM_UP_STEPS = 3
#: Number of steps between readings of the loss; each reading waits for the device.
LOSS_EVERY = 10


def train(
    training: Training,
    algorithm: Algorithm,
    splits: Mapping[str, Split | SourceSplit],
    validation: Mapping[Selection, Mapping[str, Split | SourceSplit]],
    device: torch.device,
    checkpoint: Path,
    origin: Mapping[str, str],
    memory: PeakMemory,
    meter: Meter,
    watcher: Watcher,
    batch: int | None = None,
    judge: Judge | None = None,
) -> TrainingProgress:
    """Train or resume an algorithm; note the best weights of each selection.

    Args:
        training: the training, which has a schedule.
        algorithm: the algorithm with its initial weights; it ends with the last ones.
        splits: the splits of its dataset.
        validation: the splits of the validation episodes, by the selection that uses them.
        device: the device that it runs on.
        checkpoint: the file to resume from and to write. The result does not depend on when a run was interrupted.
        origin: device, data, code and versions that the weights depend on; a checkpoint of another origin is not used.
        memory: the peak memory since the algorithm was built.
        meter: measures what the training uses.
        watcher: sees the progress, and may ask to stop.
        batch: number of validation episodes at once; None chooses by device.
        judge: asked after each validation but the last whether to end early; None makes all steps.

    Raises:
        CellFailed: the loss or a score is not finite, or the time limit is over.
        Interrupted: `watcher` asked to stop.
        Pruned: `judge` ended the training; its checkpoint stays.
        StoreError: a checkpoint cannot be written or read.
    """
    schedule = training.schedule
    assert schedule is not None, "a training has a schedule"
    steps, batches = steps_of(schedule, splits["train"]), training_batches(training, splits, device)
    progress = load_checkpoint(algorithm, checkpoint, origin, list(validation)) or TrainingProgress.of(validation)
    validations = {
        selection: (episodes, BatchSize(device, batch or episodes.at_once))
        for selection, held_out in validation.items()
        for episodes in [validation_stream(schedule.validation_seed, held_out, selection.shape, device)]
    }
    kind = next((episodes.task.kind for episodes, _ in validations.values()), Classification.kind)
    ranking = OF_TASK[kind][0].declaration
    watch = Stopwatch(device, progress.seconds)
    timed_from = progress.step + WARM_UP_STEPS
    clock, before = CheckpointClock(), Used.of(progress.used)

    def note_costs() -> None:
        progress.peak_memory_bytes = max(progress.peak_memory_bytes, memory.bytes())
        progress.used = None if before is None else asdict(before + meter.read())

    def save() -> None:
        note_costs()
        with clock.writing():
            save_checkpoint(algorithm, progress, origin, checkpoint)

    watcher.phase("train", steps, progress.step)
    try:
        while True:
            if _validation_is_due(progress, schedule, steps):
                values = _validate(training, algorithm, progress, validations, watcher)
                progress.note(values, ranking.sign, algorithm)
                watcher.phase("train", steps, progress.step)
                ended = _is_over(progress, schedule, steps)
                if judge is not None and not ended and judge(progress.curve):
                    raise Pruned(progress.curve)
            if _is_over(progress, schedule, steps) or progress.is_out_of_patience(schedule.patience):
                break
            first, timed = progress.step, progress.step >= timed_from
            until = min(_next_pause(first, schedule.validate_every, steps), steps if timed else timed_from)
            with (watch if timed else Stopwatch(device)).running():
                loss = _train_steps(training.seed, algorithm, batches, progress, until, watcher, clock)
            progress.timed_steps += (progress.step - first) * timed
            progress.seconds = watch.seconds
            if not np.isfinite(loss):
                raise CellFailed(
                    f"training diverged: the loss is {loss} after step {progress.step} of {steps}. "
                    "Lower the learning rates, or clip the gradient"
                )
            if schedule.time_limit is not None and progress.seconds > schedule.time_limit:
                raise CellFailed(
                    f"the training took longer than its time_limit of {schedule.time_limit:g} s: step {progress.step} "
                    f"of {steps} was reached"
                )
            watcher.advance(progress.step, f"loss {loss:.3f}{_best(progress, ranking)}")
            if watcher.should_stop():
                raise Interrupted
            if clock.is_due:
                save()
    except Interrupted:
        save()
        raise
    note_costs()
    return progress


def _best(progress: TrainingProgress, ranking: Declaration) -> str:
    """Return the best validation of the first selection, for people."""
    curve = next(iter(progress.going.values()), None)
    return "" if curve is None or curve.best is None else f", val {ranking.short(curve.best)}"


def _validate(
    training: Training,
    algorithm: Algorithm,
    progress: TrainingProgress,
    validations: Mapping[Selection, tuple[Stream, BatchSize]],
    watcher: Watcher,
) -> dict[Selection, float]:
    """Return the metric that ranks in validation of the current weights, for each selection.

    If the validation for one of several selections fails, that selection ends with the reason: only its cells fail.
    """
    schedule = training.schedule
    assert schedule is not None, "a training has a schedule"
    values: dict[Selection, float] = {}
    count, config = schedule.validation_episodes, algorithm.config
    for selection in list(progress.going):
        episodes, batch = validations[selection]
        shape = selection.shape
        watcher.phase("validate" if len(validations) == 1 else f"validate {shape.shot}-shot", count)
        try:
            algorithm.config = with_params(config, json.loads(selection.params))
            with testing_memory(shape, training):
                values[selection] = float(
                    evaluate(algorithm, episodes, count, batch, schedule.validation_seed, watcher).mean()
                )
        except Interrupted:
            raise
        except Exception as error:
            if len(progress.going) == 1:
                raise
            progress.curves[selection].problem = str(error) if isinstance(error, CellFailed) else in_one_line(error)
        finally:
            algorithm.config = config
    return values


def _is_over(progress: TrainingProgress, schedule: Schedule, steps: int) -> bool:
    """Return whether all steps are made, or the budget of seconds is spent."""
    return progress.step >= steps or (schedule.seconds is not None and progress.seconds >= schedule.seconds)


def _validation_is_due(progress: TrainingProgress, schedule: Schedule, steps: int) -> bool:
    """Return whether the current weights must be validated now."""
    step = progress.step
    due = step > 0 and (step % schedule.validate_every == 0 or _is_over(progress, schedule, steps))
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
    seed: int,
    algorithm: Algorithm,
    batches: Callable[[int], Episodes | Images],
    progress: TrainingProgress,
    until: int,
    watcher: Watcher,
    clock: CheckpointClock,
) -> float:
    """Make the outer updates up to step `until`; return the last loss.

    The loop ends earlier to stop or to write a checkpoint. It reads no result back from the device.
    """
    algorithm.train()
    loss = torch.zeros(())
    while progress.step < until:
        # Each step has its own seed, so that a resumed run makes the same step.
        seed_generators(derive_seed(seed, f"train {progress.step}"))
        loss = _loss(algorithm.train_step(batches(progress.step)))
        progress.step += 1
        watcher.advance(progress.step)
        if watcher.should_stop() or clock.is_due:
            break
    return float(loss)
