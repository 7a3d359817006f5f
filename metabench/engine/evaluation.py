"""Compute metrics of a trained algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metabench.analysis.metrics import OF_TASK, OUTPUTS_AT_ONCE, Collector, class_accuracies, log_probabilities
from metabench.analysis.stats import Floats
from metabench.api import Algorithm, Classification, Episodes, Task
from metabench.engine.asking import predict, predict_alone
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.streams import Stream
from metabench.errors import CellFailed
from metabench.machine.memory import BatchSize
from metabench.records.record import Outputs

_Scalar = TypeVar("_Scalar", bound=np.generic)

#: Most queries of a regression episode that are asked on their own; of a classification, the first of each class.
_ALONE = 5


def evaluate(
    algorithm: Algorithm,
    stream: Stream,
    episodes: int,
    batch: BatchSize,
    seed: int,
    watcher: Watcher | None = None,
    first: int | None = None,
) -> Floats:
    """Return the metric that ranks, of each class of each episode.

    Args:
        algorithm: the trained algorithm.
        stream: the stream whose episodes 0 … `episodes` - 1 are predicted.
        episodes: number of episodes.
        batch: number of episodes predicted at once.
        seed: seed of the algorithm's random draws.
        watcher: sees the progress, and may ask to stop.
        first: as in `in_batches`.

    Returns:
        [episodes - first, N] accuracies of label 0 … N-1 (`class_accuracies`); the mean of a row is the accuracy of the
        episode. Of a regression, which has no classes, [episodes - first, 1] mean squared errors.

    Raises:
        CellFailed: a score is NaN or +inf.
        Interrupted: `watcher` asked to stop.
    """

    def accuracies(start: int, count: int) -> Floats:
        return by_class(stream.task, *answers(algorithm, stream, seed, start, count))

    return in_batches(accuracies, episodes, batch, watcher, first, stream.task.kind)


def by_class(task: Task, outputs: Floats, targets: npt.NDArray[Any]) -> Floats:
    """Return the metric that ranks, of each class of each episode.

    Args:
        task: the task of the episodes.
        outputs: [B, M, N] scores, or [B, M, D] numbers of a regression.
        targets: [B, M] labels, or [B, M, D] numbers.

    Returns:
        [B, N] accuracies; [B, 1] mean squared errors of a regression, which has no classes.
    """
    if isinstance(task, Classification):
        return class_accuracies(outputs, targets)
    figures = OF_TASK[task.kind][0].metric.of_episode(outputs, targets)
    return np.asarray(figures, dtype=np.float64)[:, None]


def inductive_accuracies(
    algorithm: Algorithm,
    stream: Stream,
    episodes: int,
    batch: BatchSize,
    seed: int,
    watcher: Watcher | None = None,
    first: int | None = None,
) -> Floats:
    """Return the metric that ranks when every query is predicted on its own (inductive protocol).

    Only the first query of each class is predicted, or the first few of a regression.

    Args:
        algorithm: the trained algorithm.
        stream: the stream whose episodes 0 … `episodes` - 1 are predicted.
        episodes: number of episodes.
        batch: number of episodes predicted at once.
        seed: seed of the algorithm's random draws.
        watcher: sees the progress, and may ask to stop.
        first: as in `in_batches`.

    Returns:
        [episodes - first] values.

    Raises:
        CellFailed: a score is NaN or +inf.
        Interrupted: `watcher` asked to stop.
    """

    def values(start: int, count: int) -> Floats:
        drawn = queries_alone(stream.batch(start, count))
        outputs = _checked(predict_alone(algorithm, drawn, seed, start), drawn.task)
        means: Floats = by_class(drawn.task, outputs, _targets(drawn)).mean(axis=1)
        return means

    return in_batches(values, episodes, batch, watcher, first, stream.task.kind)


def measure(
    algorithm: Algorithm,
    stream: Stream,
    episodes: int,
    batch: BatchSize,
    seed: int,
    collector: Collector,
    keep: int,
    watcher: Watcher | None = None,
    first: int | None = None,
) -> tuple[Floats, Outputs | None]:
    """Compute metrics of a trained algorithm.

    Args:
        algorithm: as in `evaluate`, also for `stream`, `episodes`, `batch`, `seed`, `watcher` and `first`.
        collector: gets the outputs.
        keep: the outputs of episodes below this number are kept.

    Returns:
        The result of `evaluate`, and the kept outputs of these episodes; None if there are none. Where ways vary, a row
        has one number: the accuracy of the episode.

    Raises:
        CellFailed: as `evaluate`.
        Interrupted: `watcher` asked to stop.
    """
    chunk: list[tuple[Floats, npt.NDArray[Any]]] = []
    task = stream.task
    classified = isinstance(task, Classification)
    kept: list[Outputs] = []
    done = ended = first or 0

    def end_chunk() -> None:
        nonlocal ended
        scores, targets = (np.concatenate(parts) for parts in zip(*chunk, strict=True))
        chunk.clear()
        outputs = log_probabilities(scores) if classified else scores
        collector.add(outputs, targets)
        lacking = keep - ended
        ended += len(targets)
        if lacking > 0:
            values = by_class(task, outputs[:lacking], targets[:lacking]).mean(axis=1)
            dtype = np.float16 if classified else np.float32
            kept.append(Outputs(outputs[:lacking].astype(dtype, order="C"), targets[:lacking], values))

    def accuracies(start: int, count: int) -> Floats:
        nonlocal done
        scores, targets = answers(algorithm, stream, seed, start, count)
        wanted = slice(done - start, episodes - start)  # a whole batch may begin before, and end after them
        chunk.append((scores[wanted], targets[wanted]))
        done = min(episodes, start + count)
        if stream.varies or sum(part.size for part, _ in chunk) >= OUTPUTS_AT_ONCE:
            end_chunk()
        values = by_class(task, scores, targets)
        return values.mean(axis=1, keepdims=True) if stream.varies else values

    values = in_batches(accuracies, episodes, batch, watcher, first, task.kind)
    if chunk:
        end_chunk()
    return values, reduce(Outputs.followed_by, kept) if kept else None


def answers(algorithm: Algorithm, stream: Stream, seed: int, first: int, count: int) -> tuple[Floats, npt.NDArray[Any]]:
    """Return the [B, M, N] scores of episodes, on the host, and their [B, M] labels; of a regression, numbers.

    Raises:
        CellFailed: as `checked`.
    """
    drawn = stream.batch(first, count)
    return _checked(predict(algorithm, drawn, seed, first), drawn.task), _targets(drawn)


def _targets(episodes: Episodes) -> npt.NDArray[Any]:
    """Return the labels of the queries, or their numbers as float64."""
    targets = episodes.query_y.cpu()
    return (targets.double() if targets.is_floating_point() else targets).numpy()


def in_batches(
    results: Callable[[int, int], npt.NDArray[_Scalar]],
    episodes: int,
    batch: BatchSize,
    watcher: Watcher | None = None,
    first: int | None = None,
    task: str = Classification.kind,
) -> npt.NDArray[_Scalar]:
    """Return ``results(start, count)`` of all batches, joined.

    Args:
        results: returns an array with one row for each of `count` episodes from number `first` on.
        episodes: number of episodes.
        batch: number of episodes computed at once.
        watcher: sees the progress and the mean of the results, and may ask to stop.
        first: number of the first wanted episode. Batches then begin at multiples of their size and are whole, so that
            the results of an episode are the same, bit for bit, whatever episodes are wanted. None begins at 0, and the
            last batch may be smaller.
        task: kind of the task, whose metric that ranks is shown.

    Raises:
        Interrupted: `watcher` asked to stop.
    """
    batches: list[npt.NDArray[_Scalar]] = []
    done = first or 0

    def next_batch(size: int) -> npt.NDArray[_Scalar]:
        if first is None:
            return results(done, min(size, episodes - done))
        start = done - done % size
        return results(start, size)[done - start : episodes - start]

    while done < episodes:
        batches.append(batch.fit(next_batch))
        done += len(batches[-1])
        if watcher is not None:
            ranking = OF_TASK[task][0].declaration
            so_far = ranking.short(float(np.concatenate(batches).mean())) if len(batches) % 10 == 1 else ""
            watcher.advance(done, so_far)
            if watcher.should_stop():
                raise Interrupted
    return np.concatenate(batches)


def queries_alone(episodes: Episodes) -> Episodes:
    """Return the episodes with one query per class, in label order; with the first few queries of a regression.

    An episode in which a class has no query keeps its first N queries.
    """
    if not isinstance(episodes.task, Classification):
        return replace(episodes, query_x=episodes.query_x[:, :_ALONE], query_y=episodes.query_y[:, :_ALONE])
    labels = torch.arange(episodes.way, device=episodes.query_y.device).expand(len(episodes), -1)
    of_class = episodes.query_y.unsqueeze(1) == labels.unsqueeze(2)
    chosen = torch.where(of_class.any(dim=2).all(dim=1, keepdim=True), of_class.int().argmax(dim=2), labels)
    queries = episodes.query_x[torch.arange(len(episodes), device=chosen.device).unsqueeze(1), chosen]
    return replace(episodes, query_x=queries, query_y=episodes.query_y.gather(1, chosen))


def _checked(answers: Tensor, task: Task) -> Floats:
    """Return scores or the numbers of a regression, as `checked` or `checked_numbers`."""
    return checked(answers) if isinstance(task, Classification) else checked_numbers(answers)


def checked_numbers(numbers: Tensor) -> Floats:
    """Return the numbers of a regression as float64 on the host.

    Raises:
        CellFailed: a number is not finite.
    """
    finite = numbers.isfinite()
    if not bool(finite.all()):
        raise CellFailed(
            f"a prediction is not finite ({float(numbers[~finite][0])}): the trained weights, or the adaptation, "
            "diverged. Lower the learning rates, or clip the gradient"
        )
    return numbers.double().cpu().numpy()


def checked(scores: Tensor) -> Floats:
    """Return scores as float64 on the host.

    Raises:
        CellFailed: a score is NaN or +inf, or a query has no possible class.
    """
    possible = scores.isfinite()
    wrong = scores.isnan() | scores.isposinf() | ~possible.any(dim=-1, keepdim=True)
    if bool(wrong.any()):
        first = float(scores[wrong.expand_as(scores)][0])
        raise CellFailed(
            f"a prediction is not finite (a score is {first}): the trained weights, or the adaptation, diverged. Only "
            "classes that are impossible for a query may score -inf, and one class must be possible"
        )
    return scores.double().cpu().numpy()
