"""Compute accuracies and further metrics of a trained algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

_Scalar = TypeVar("_Scalar", bound=np.generic)


def evaluate(
    algorithm: Algorithm,
    stream: EpisodeStream,
    episodes: int,
    batch: BatchSize,
    seed: int,
    watcher: Watcher | None = None,
) -> Floats:
    """Return the accuracy of each class of each episode.

    Args:
        algorithm: the trained algorithm.
        stream: the stream whose episodes 0 … `episodes` - 1 are predicted.
        episodes: number of episodes.
        batch: number of episodes predicted at once.
        seed: seed of the algorithm's random draws.
        watcher: sees the progress, and may ask to stop.

    Returns:
        [episodes, N] share of the queries of label 0 … N-1 that are classified correctly. All classes have the same
        number of queries, so that the mean of a row is the accuracy of the episode.

    Raises:
        CellFailed: a score is NaN or +inf.
        Interrupted: `watcher` asked to stop.
    """

    def accuracies(first: int, count: int) -> Floats:
        return class_accuracies(*answers(algorithm, stream, seed, first, count))

    return in_batches(accuracies, episodes, batch, watcher)


def inductive_accuracies(
    algorithm: Algorithm,
    stream: EpisodeStream,
    episodes: int,
    batch: BatchSize,
    seed: int,
    watcher: Watcher | None = None,
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

    Returns:
        [episodes] accuracies.

    Raises:
        CellFailed: a score is NaN or +inf.
        Interrupted: `watcher` asked to stop.
    """

    def accuracies(first: int, count: int) -> Floats:
        drawn = first_of_each_class(stream.batch(first, count))
        means: Floats = credit(checked(predict_alone(algorithm, drawn, seed, first)), _labels(drawn)).mean(axis=1)
        return means

    return in_batches(accuracies, episodes, batch, watcher)


@dataclass(frozen=True)
class Measured:
    """The test of an algorithm, beside the figures of its metrics.

    Attributes:
        by_class: [episodes, N] accuracies, as `evaluate` returns them.
        kept: the kept [n, M, N] log-probabilities and [n, M] labels; None if none are kept.
    """

    by_class: Floats
    kept: tuple[npt.NDArray[np.float16], Ints] | None


def measure(
    algorithm: Algorithm,
    stream: EpisodeStream,
    episodes: int,
    batch: BatchSize,
    seed: int,
    collector: Collector,
    keep: int,
    watcher: Watcher | None = None,
) -> Measured:
    """Compute metrics of a trained algorithm.

    Args:
        algorithm: as in `evaluate`, also for `stream`, `episodes`, `batch`, `seed` and `watcher`.
        collector: computes the metrics.
        keep: number of first episodes whose outputs are kept.

    Raises:
        CellFailed: as `evaluate`.
        Interrupted: `watcher` asked to stop.
    """
    chunk: list[tuple[Floats, Ints]] = []
    kept: list[tuple[npt.NDArray[np.float16], Ints]] = []

    def end_chunk() -> None:
        scores, targets = (np.concatenate(parts) for parts in zip(*chunk, strict=True))
        chunk.clear()
        outputs = log_probabilities(scores)
        collector.add(outputs, targets)
        lacking = keep - sum(len(labels) for _, labels in kept)
        if lacking > 0:
            kept.append((outputs[:lacking].astype(np.float16, order="C"), targets[:lacking]))

    def accuracies(first: int, count: int) -> Floats:
        scores, targets = answers(algorithm, stream, seed, first, count)
        chunk.append((scores, targets))
        if sum(part.size for part, _ in chunk) >= OUTPUTS_AT_ONCE:
            end_chunk()
        return class_accuracies(scores, targets)

    by_class = in_batches(accuracies, episodes, batch, watcher)
    if chunk:
        end_chunk()
    if not kept:
        return Measured(by_class, None)
    return Measured(by_class, (np.concatenate([part for part, _ in kept]), np.concatenate([part for _, part in kept])))


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
) -> npt.NDArray[_Scalar]:
    """Return ``results(first, count)`` of all batches, joined.

    Args:
        results: returns an array with one row for each of `count` episodes from number `first` on.
        episodes: number of episodes.
        batch: number of episodes computed at once.
        watcher: sees the progress and the mean of the results, and may ask to stop.

    Raises:
        Interrupted: `watcher` asked to stop.
    """
    batches: list[npt.NDArray[_Scalar]] = []
    done = 0

    def next_batch(size: int) -> npt.NDArray[_Scalar]:
        return results(done, min(size, episodes - done))

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
    """Return the episodes with one query per class, in label order."""
    labels = torch.arange(episodes.way, device=episodes.query_y.device).expand(len(episodes), -1)
    chosen = (episodes.query_y.unsqueeze(1) == labels.unsqueeze(2)).int().argmax(dim=2)
    queries = episodes.query_x[torch.arange(len(episodes), device=chosen.device).unsqueeze(1), chosen]
    return Episodes(episodes.support_x, episodes.support_y, queries, labels, episodes.task)


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
