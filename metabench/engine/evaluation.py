"""Measure the accuracy of a trained algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from metabench.analysis.stats import Floats
from metabench.api import Algorithm, Episodes
from metabench.engine.asking import predict, predict_alone
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.streams import EpisodeStream
from metabench.errors import CellFailed
from metabench.machine.memory import BatchSize


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
        [episodes - first, N] share of the queries of label 0 … N-1 that are classified correctly. All classes have the
        same number of queries, so that the mean of a row is the accuracy of the episode.

    Raises:
        CellFailed: a score is not finite.
        Interrupted: `watcher` asked to stop.
    """

    def accuracies(start: int, count: int) -> Tensor:
        drawn = stream.batch(start, count)
        return class_accuracies(predict(algorithm, drawn, seed, start), drawn.query_y)

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
        CellFailed: a score is not finite.
        Interrupted: `watcher` asked to stop.
    """

    def accuracies(start: int, count: int) -> Tensor:
        drawn = first_of_each_class(stream.batch(start, count))
        return credit(predict_alone(algorithm, drawn, seed, start), drawn.query_y).mean(dim=1)

    return in_batches(accuracies, episodes, batch, watcher, first)


def in_batches(
    results: Callable[[int, int], Tensor],
    episodes: int,
    batch: BatchSize,
    watcher: Watcher | None = None,
    first: int | None = None,
) -> Floats:
    """Return ``results(start, count)`` of all batches, joined.

    Args:
        results: returns a tensor with one row for each of `count` episodes from number `first` on.
        episodes: number of episodes.
        batch: number of episodes computed at once.
        watcher: sees the progress and the mean of the results, and may ask to stop.
        first: number of the first wanted episode. Batches then begin at multiples of their size and are whole, so that
            the results of an episode are the same, bit for bit, whatever episodes are wanted. None begins at 0, and the
            last batch may be smaller.

    Raises:
        Interrupted: `watcher` asked to stop.
    """
    batches: list[Tensor] = []
    done = first or 0

    def next_batch(size: int) -> Tensor:
        if first is None:
            return results(done, min(size, episodes - done))
        start = done - done % size
        return results(start, size)[done - start : episodes - start]

    while done < episodes:
        batches.append(batch.fit(next_batch))
        done += len(batches[-1])
        if watcher is not None:
            so_far = f"accuracy {float(torch.cat(batches).mean()):.2%}" if len(batches) % 10 == 1 else ""
            watcher.advance(done, so_far)
            if watcher.should_stop():
                raise Interrupted
    return torch.cat(batches).cpu().numpy()


def first_of_each_class(episodes: Episodes) -> Episodes:
    """Return the episodes with one query per class, in label order."""
    labels = torch.arange(episodes.way, device=episodes.query_y.device).expand(len(episodes), -1)
    chosen = (episodes.query_y.unsqueeze(1) == labels.unsqueeze(2)).int().argmax(dim=2)
    queries = episodes.query_x[torch.arange(len(episodes), device=chosen.device).unsqueeze(1), chosen]
    return replace(episodes, query_x=queries, query_y=labels)


def class_accuracies(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the [B, N] accuracy of each class, with ties as in `credit`."""
    of_class = nn.functional.one_hot(labels, scores.shape[-1]).double()
    return torch.einsum("bm,bmn->bn", credit(scores, labels), of_class) / of_class.sum(dim=1)


def credit(scores: Tensor, labels: Tensor) -> Tensor:
    """Return 1 for each correct prediction, 0 for a wrong one.

    Classes that tie for the largest score share the credit: constant scores earn 1/N for any labels.

    Args:
        scores: [B, M, N] scores.
        labels: [B, M] labels.

    Returns:
        [B, M] credits in float64.

    Raises:
        CellFailed: a score is not finite.
    """
    finite = torch.isfinite(scores)
    if not bool(finite.all()):
        raise CellFailed(
            f"a prediction is not finite (a score is {float(scores[~finite][0])}): the trained weights, or the "
            "adaptation, diverged, or impossible classes have infinite scores, not low ones"
        )
    best = scores == scores.max(dim=-1, keepdim=True).values
    share = best.double() / best.sum(dim=-1, keepdim=True)
    return share.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
