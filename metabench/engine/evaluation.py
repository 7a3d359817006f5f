"""Measure a trained algorithm: accuracy, transduction, latency and operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metabench.analysis.stats import Floats
from metabench.api import Algorithm, Episodes
from metabench.api.batching import Sequential
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.streams import EpisodeStream
from metabench.errors import CellFailed
from metabench.machine.clock import Stopwatch, percentiles_ms
from metabench.machine.memory import BatchSize
from metabench.machine.reproducible import derive_seed, seed_generators

#: Largest number of episodes timed one by one for the latency.
LATENCY_EPISODES = 30
#: Number of untimed episodes before them.
LATENCY_WARM_UP = 3
#: Number of episodes in which `is_transductive` exchanges queries.
PROBE_EPISODES = 8
#: Largest difference of scores that counts as rounding, as a share of the scores' range.
PROBE_TOLERANCE = 1e-4


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
        CellFailed: a score is not finite.
        Interrupted: `watcher` asked to stop.
    """

    def accuracies(first: int, count: int) -> Tensor:
        batch_of_episodes = stream.batch(first, count)
        return class_accuracies(predict(algorithm, batch_of_episodes, seed, first), batch_of_episodes.query_y)

    return _in_batches(accuracies, episodes, batch, watcher)


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
        CellFailed: a score is not finite, or `predict_alone` disagrees with `predict` on a single query.
        Interrupted: `watcher` asked to stop.
    """

    def accuracies(first: int, count: int) -> Tensor:
        batch_of_episodes = first_of_each_class(stream.batch(first, count))
        scores = predict(algorithm, batch_of_episodes, seed, first, alone=True)
        return credit(scores, batch_of_episodes.query_y).mean(dim=1)

    _check_predict_alone(algorithm, first_of_each_class(stream.batch(0, 1)), seed)
    return _in_batches(accuracies, episodes, batch, watcher)


def _in_batches(
    accuracies: Callable[[int, int], Tensor], episodes: int, batch: BatchSize, watcher: Watcher | None
) -> Floats:
    """Return ``accuracies(first, count)`` of all batches, joined."""
    batches: list[Tensor] = []
    done = 0

    def next_batch(size: int) -> Tensor:
        return accuracies(done, min(size, episodes - done))

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
    return Episodes(episodes.support_x, episodes.support_y, queries, labels, episodes.way)


def _check_predict_alone(algorithm: Algorithm, episodes: Episodes, seed: int) -> None:
    """Check that `predict_alone` and `predict` agree on single queries.

    Raises:
        CellFailed: they disagree.
    """
    scores = predict(algorithm, episodes, seed, 0, alone=True)
    for query in range(episodes.way):
        single = replace(episodes, query_x=episodes.query_x[:, [query]], query_y=episodes.query_y[:, [query]])
        if _scores_differ(predict(algorithm, single, seed, 0), scores[:, [query]]):
            raise CellFailed(
                "predict_alone returns other scores than predict does for an episode of one query: "
                "correct it, or use `metabench.api.Algorithm.predict_alone`"
            )


def flops(algorithm: Algorithm, stream: EpisodeStream, seed: int) -> int:
    """Return the floating-point operations of one episode's adaptation and predictions.

    Convolutions and matrix products count; a multiplication and an addition are two operations.
    """
    counter = FlopCounterMode(display=False)
    # The counter sees only its own thread.
    batching, algorithm.batching = algorithm.batching, Sequential()
    try:
        with counter:
            predict(algorithm, stream.batch(0, 1), seed, 0)
    finally:
        algorithm.batching = batching
    return counter.get_total_flops()


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
    if not bool(torch.isfinite(scores).all()):
        raise CellFailed("a prediction is not finite: the trained weights, or the adaptation, diverged")
    best = scores == scores.max(dim=-1, keepdim=True).values
    share = best.double() / best.sum(dim=-1, keepdim=True)
    return share.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def is_transductive(algorithm: Algorithm, stream: EpisodeStream, seed: int, episodes: int = PROBE_EPISODES) -> bool:
    """Return whether a query's scores depend on the other queries.

    The second half of each episode's queries is exchanged, and the scores of the first half are compared. The new
    queries are from episodes outside the batch, so that an algorithm that mixes the episodes of a batch is detected,
    too.
    """
    original, others = stream.batch(0, episodes), stream.batch(episodes, episodes)
    kept = original.query_x.shape[1] // 2
    exchanged = replace(original, query_x=torch.cat([original.query_x[:, :kept], others.query_x[:, kept:]], dim=1))
    before = predict(algorithm, original, seed, 0)[:, :kept]
    after = predict(algorithm, exchanged, seed, 0)[:, :kept]
    return _scores_differ(before, after)


def _scores_differ(before: Tensor, after: Tensor) -> bool:
    """Return whether scores differ by more than rounding."""
    scale = (before.max() - before.min()).clamp_min(1e-12)
    return bool((before - after).abs().max() > PROBE_TOLERANCE * scale)


def latency_ms(
    algorithm: Algorithm, stream: EpisodeStream, seed: int, device: torch.device, episodes: int
) -> dict[str, float]:
    """Return median and 95th percentile of the time per single episode.

    The episode's tensors are on the device before the clock starts.

    Args:
        algorithm: the trained algorithm.
        stream: the test episodes.
        seed: seed of the algorithm's random draws.
        device: the device that it runs on.
        episodes: number of timed episodes, at most `LATENCY_EPISODES`.
    """
    seconds = []
    for i in range(LATENCY_WARM_UP + min(episodes, LATENCY_EPISODES)):
        episode = stream.batch(i, 1)
        watch = Stopwatch(device)
        with watch.running():
            predict(algorithm, episode, seed, i)
        seconds.append(watch.seconds)
    return percentiles_ms(seconds[LATENCY_WARM_UP:])


def predict(algorithm: Algorithm, episodes: Episodes, seed: int, first: int, alone: bool = False) -> Tensor:
    """Return the [B, M, N] scores of B episodes, detached from any graph.

    Args:
        algorithm: the algorithm.
        episodes: the episodes.
        seed: seed of the algorithm's random draws, with `first`.
        first: number of the first episode in its stream.
        alone: whether each query is predicted on its own (`metabench.api.Algorithm.predict_alone`).
    """
    algorithm.eval()
    seed_generators(derive_seed(seed, f"predict {first}"))
    classify = algorithm.predict_alone if alone else algorithm.predict
    return classify(episodes.support_x, episodes.support_y, episodes.query_x, episodes.way).detach()
