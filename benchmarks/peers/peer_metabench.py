"""Contestants of metabench, which do what its engine does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from contestants import CHECKED_TASKS, EVALUATION_BATCH, PREPARED_BATCHES, TASKS, Contestant
from metabench_cells import CellWork
from network import initial_classifier, initial_context, initial_embedding
from torch.utils.flop_counter import FlopCounterMode

from metabench.analysis.metrics import class_accuracies
from metabench.analysis.stats import Floats
from metabench.api.algorithms import training_loss
from metabench.api.batching import Sequential
from metabench.engine.asking import predict
from metabench.engine.evaluation import answers
from metabench.machine.reproducible import derive_seed, deterministic


def protonet_evaluation(data: Path, precision: str) -> Contestant:
    """Evaluate prototypical networks, data included."""
    work = CellWork("protonet", "characters", precision)
    work.load(initial_embedding())
    return _evaluation(work)


def matchingnet_evaluation(data: Path, precision: str) -> Contestant:
    """Evaluate matching networks, data included."""
    work = CellWork("matchingnet", "characters", precision)
    work.load(initial_embedding(), *initial_context())
    return _evaluation(work)


def maml_step(data: Path, precision: str) -> Contestant:
    """Train MAML on prepared meta-batches."""
    work = _maml("characters", precision)
    batches = [work.train.batch(i * TASKS, TASKS) for i in range(PREPARED_BATCHES)]

    def check() -> list[float]:
        work.algorithm.train()
        with deterministic():
            losses = [training_loss(work.algorithm, task) for task in batches[0]]
        return [float(loss) for loss in losses[:CHECKED_TASKS]]

    return _steps(work, lambda number: batches[number % PREPARED_BATCHES], check)


def maml_step_with_data(data: Path, precision: str) -> Contestant:
    """Train MAML, data included."""
    work = _maml("rotated", precision)
    return _steps(work, lambda number: work.train.batch(number * TASKS, TASKS), None)


def maml_adaptation(data: Path, precision: str) -> Contestant:
    """Adapt to prepared episodes and predict."""
    work = _maml("characters", precision)
    batches = [work.test.batch(i * EVALUATION_BATCH, EVALUATION_BATCH) for i in range(PREPARED_BATCHES)]
    numbers = itertools.count()

    def step() -> int:
        number = next(numbers)
        with deterministic():
            predict(work.algorithm, batches[number % PREPARED_BATCHES], work.seed, number)
        return EVALUATION_BATCH

    def check() -> list[float]:
        with deterministic():
            scores = predict(work.algorithm, batches[0], work.seed, 0)
        return scores[:CHECKED_TASKS].softmax(dim=-1).flatten().tolist()

    return Contestant(step, check, count_flops=_counted(work, step))


def episodes(data: Path) -> Contestant:
    """Draw and gather training episodes."""
    stream = CellWork("maml", "rotated", "float32").train
    firsts = itertools.count(0, EVALUATION_BATCH)
    return Contestant(lambda: len(stream.batch(next(firsts), EVALUATION_BATCH)))


def _maml(dataset: str, precision: str) -> CellWork:
    work = CellWork("maml", dataset, precision)
    work.load(initial_classifier())
    return work


def _evaluation(work: CellWork) -> Contestant:
    firsts = itertools.count(0, EVALUATION_BATCH)

    def one_batch(first: int) -> Floats:
        """Evaluate one batch, as `metabench.engine.evaluation.evaluate` does."""
        with deterministic():
            return class_accuracies(*answers(work.algorithm, work.test, work.seed, first, EVALUATION_BATCH))

    def step() -> int:
        return len(one_batch(next(firsts)))

    def check() -> list[float]:
        with deterministic():
            scores = predict(work.algorithm, work.test.batch(0, EVALUATION_BATCH), work.seed, 0)
        return scores.argmax(dim=-1).flatten().tolist()

    def accuracies(count: int) -> list[float]:
        batches = [one_batch(first) for first in range(0, count, EVALUATION_BATCH)]
        return np.concatenate(batches).mean(axis=1).tolist()

    return Contestant(step, check, accuracies, count_flops=_counted(work, step))


def _steps(work: CellWork, batch: Callable[[int], object], check: Callable[[], list[float]] | None) -> Contestant:
    """Return a contestant that trains as the engine does."""
    numbers = itertools.count()

    def step() -> int:
        number = next(numbers)
        work.algorithm.train()
        torch.manual_seed(derive_seed(work.seed, f"train {number}"))
        with deterministic():
            work.algorithm.train_step(batch(number))
        return TASKS

    return Contestant(step, check, count_flops=_counted(work, step))


def _counted(work: CellWork, step: Callable[[], int]) -> Callable[[], float]:
    def count() -> float:
        counter = FlopCounterMode(display=False)
        # FlopCounterMode counts in its own thread only.
        batchings = work.algorithm.batching, work.algorithm.training_batching
        work.algorithm.batching = work.algorithm.training_batching = Sequential()
        with counter:
            episodes_done = step()
        work.algorithm.batching, work.algorithm.training_batching = batchings
        return counter.get_total_flops() / episodes_done

    return count
