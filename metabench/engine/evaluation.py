"""Compute accuracies and further metrics of a trained algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metabench.analysis.metrics import OUTPUTS_AT_ONCE, Collector, class_accuracies, credit, log_probabilities
from metabench.analysis.stats import Floats, Ints
from metabench.api import Algorithm, Episodes
from metabench.engine.asking import predict, predict_alone
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.streams import EpisodeStream
from metabench.errors import CellFailed
from metabench.machine.memory import BatchSize
from metabench.records.record import Outputs

_Scalar = TypeVar("_Scalar", bound=np.generic)


def evaluate(
    algorithm: Algorithm,
    stream: EpisodeStream,
    episodes: int,
    batch: BatchSize,
    seed: int,
    watcher: Watcher | None = None,
    first: int | None = None,
) -> Floats:
    """Return the accuracy of each class of each episode.

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
        episode.

    Raises:
        CellFailed: a score is NaN or +inf.
        Interrupted: `watcher` asked to stop.
    """

    def accuracies(start: int, count: int) -> Floats:
        return class_accuracies(*answers(algorithm, stream, seed, start, count))

    return in_batches(accuracies, episodes, batch, watcher, first)


def inductive_accuracies(
    algorithm: Algorithm,
    stream: EpisodeStream,
    episodes: int,
    batch: BatchSize,
    seed: int,
    watcher: Watcher | None = None,
    first: int | None = None,
) -> Floats:
    """Accuracy per episode when every query is predicted on its own (inductive protocol).

    Only the first query of each class is predicted.

    Args:
        algorithm: the trained algorithm.
        stream: the stream whose episodes 0 … `episodes` - 1 are predicted.
        episodes: number of episodes.
        batch: number of episodes predicted at once.
        seed: seed of the algorithm's random draws.
        watcher: sees the progress, and may ask to stop.
        first: as in `in_batches`.

    Returns:
        [episodes - first] accuracies.

    Raises:
        CellFailed: a score is NaN or +inf.
        Interrupted: `watcher` asked to stop.
    """

    def accuracies(start: int, count: int) -> Floats:
        drawn = first_of_each_class(stream.batch(start, count))
        means: Floats = credit(checked(predict_alone(algorithm, drawn, seed, start)), _labels(drawn)).mean(axis=1)
        return means

    return in_batches(accuracies, episodes, batch, watcher, first)


def measure(
    algorithm: Algorithm,
    stream: EpisodeStream,
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
        The result of `evaluate`, and the kept outputs of these episodes; None if there are none.

    Raises:
        CellFailed: as `evaluate`.
        Interrupted: `watcher` asked to stop.
    """
    chunk: list[tuple[Floats, Ints]] = []
    kept: list[Outputs] = []
    done = ended = first or 0

    def end_chunk() -> None:
        nonlocal ended
        scores, targets = (np.concatenate(parts) for parts in zip(*chunk, strict=True))
        chunk.clear()
        outputs = log_probabilities(scores)
        collector.add(outputs, targets)
        lacking = keep - ended
        ended += len(targets)
        if lacking > 0:
            values = class_accuracies(outputs[:lacking], targets[:lacking]).mean(axis=1)
            kept.append(Outputs(outputs[:lacking].astype(np.float16, order="C"), targets[:lacking], values))

    def accuracies(start: int, count: int) -> Floats:
        nonlocal done
        scores, targets = answers(algorithm, stream, seed, start, count)
        wanted = slice(done - start, episodes - start)  # a whole batch may begin before, and end after them
        chunk.append((scores[wanted], targets[wanted]))
        done = min(episodes, start + count)
        if sum(part.size for part, _ in chunk) >= OUTPUTS_AT_ONCE:
            end_chunk()
        return class_accuracies(scores, targets)

    by_class = in_batches(accuracies, episodes, batch, watcher, first)
    if chunk:
        end_chunk()
    return by_class, reduce(Outputs.followed_by, kept) if kept else None


def answers(algorithm: Algorithm, stream: EpisodeStream, seed: int, first: int, count: int) -> tuple[Floats, Ints]:
    """Return the [B, M, N] scores of episodes, on the host, and their [B, M] labels.

    Raises:
        CellFailed: as `checked`.
    """
    drawn = stream.batch(first, count)
    return checked(predict(algorithm, drawn, seed, first)), _labels(drawn)


def _labels(episodes: Episodes) -> Ints:
    labels: Ints = episodes.query_y.cpu().numpy()
    return labels


def in_batches(
    results: Callable[[int, int], npt.NDArray[_Scalar]],
    episodes: int,
    batch: BatchSize,
    watcher: Watcher | None = None,
    first: int | None = None,
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
            so_far = f"accuracy {float(np.concatenate(batches).mean()):.2%}" if len(batches) % 10 == 1 else ""
            watcher.advance(done, so_far)
            if watcher.should_stop():
                raise Interrupted
    return np.concatenate(batches)


def first_of_each_class(episodes: Episodes) -> Episodes:
    """Return the episodes with one query per class, in label order.

    An episode in which a class has no query keeps its first N queries.
    """
    labels = torch.arange(episodes.way, device=episodes.query_y.device).expand(len(episodes), -1)
    of_class = episodes.query_y.unsqueeze(1) == labels.unsqueeze(2)
    chosen = torch.where(of_class.any(dim=2).all(dim=1, keepdim=True), of_class.int().argmax(dim=2), labels)
    queries = episodes.query_x[torch.arange(len(episodes), device=chosen.device).unsqueeze(1), chosen]
    return replace(episodes, query_x=queries, query_y=episodes.query_y.gather(1, chosen))


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
