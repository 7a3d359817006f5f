"""Train an algorithm until its environment steps are spent."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from metabench.contracts import Interrupted, Watcher
from metabench.jobs import (
    CellFailed,
    CheckpointClock,
    Meter,
    PeakMemory,
    Used,
    choose_device,
    derive_seed,
    seed_generators,
)
from metabench_rl.api import Algorithm
from metabench_rl.cells import Cell
from metabench_rl.drawing import training_numbers
from metabench_rl.progress import Progress, load, save
from metabench_rl.simulator import Rollouts, Simulator
from metabench_rl.testing import validate


def train(
    algorithm: Algorithm, simulator: Simulator, cell: Cell, origin: Mapping[str, str], path: Path, watcher: Watcher
) -> Progress:
    """Train, or go on from the checkpoint; the weights that are tested are then in the algorithm.

    An update is a function of weights, optimiser state and its number, so that a training that was killed ends with the
    same weights.

    Raises:
        CellFailed: a return is no number.
        Interrupted: the watcher asked to stop; a checkpoint has been written, unless a validation was running.
        StoreError: a checkpoint cannot be written or read.
    """
    updates, device = cell.updates, choose_device("cpu")
    available = None if cell.tasks.train == "any" else cell.tasks.train
    progress = load(algorithm, origin, path)
    simulator.steps = progress.steps
    before, clock, peak = Used.of(progress.used) or Used(), CheckpointClock(), PeakMemory(device)
    due = {round(k * updates / cell.train.validations) for k in range(1, cell.train.validations + 1)}
    watcher.phase("train", updates, progress.updates)
    note = ""
    with Meter(device) as meter:

        def keep() -> None:
            progress.used = asdict(before + meter.read())
            progress.peak_memory_bytes = max(progress.peak_memory_bytes, peak.bytes())
            with clock.writing():
                save(algorithm, progress, origin, path)

        def check_stop(done: int, total: int) -> None:
            # A checkpoint would say that this update was validated: the training goes on from an earlier one.
            if watcher.should_stop():
                raise Interrupted

        while progress.updates < updates:
            if watcher.should_stop():
                keep()
                raise Interrupted
            begun, simulated = time.perf_counter(), simulator.seconds
            mean = _update(algorithm, simulator, cell, progress.updates, available)
            progress.seconds += time.perf_counter() - begun
            progress.updates += 1
            progress.simulation_seconds += simulator.seconds - simulated
            if progress.updates in due:
                value = validate(algorithm, simulator, cell, check_stop)
                progress.note(value, algorithm)
                note = f", validation {value:.3g}"
            progress.steps = simulator.steps
            watcher.advance(progress.updates, f"return {mean:.3g}{note}")
            if clock.is_due:
                keep()
        keep()
    if progress.best_weights:
        algorithm.load_state_dict(progress.best_weights)
    return progress


def _update(algorithm: Algorithm, simulator: Simulator, cell: Cell, number: int, available: int | None) -> float:
    """Make update `number`, on tasks and with noise of its own; return the mean return of its episodes.

    Raises:
        CellFailed: the return is no number.
    """
    key = f"train|{cell.seed}"
    seed_generators(derive_seed(cell.seed, f"update {number}"))
    numbers = training_numbers(key, number, algorithm.tasks_per_update, available)
    tasks = simulator.family.tasks("train", numbers)
    each = algorithm.episodes_per_task
    mean = algorithm.update(algorithm.shown(tasks), Rollouts(simulator, tasks, f"{key}|{number}", allowed=each))
    if not math.isfinite(mean):
        raise CellFailed(f"the return of update {number} is no number: lower lr or inner_lr")
    return mean
