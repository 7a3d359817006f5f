"""How good, how fast and how dependent on the other queries a trained algorithm's predictions are."""

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
from metabench.machine.reproducible import derive_seed

#: Episodes timed one by one for the latency, and before them those that only warm up.
LATENCY_EPISODES = 30
LATENCY_WARM_UP = 3
#: Episodes whose other queries are exchanged to see whether a prediction moves.
PROBE_EPISODES = 8
#: A score that moves by more than this share of the scores' range was moved by the other queries.
PROBE_TOLERANCE = 1e-4


def evaluate(
    algorithm: Algorithm,
    stream: EpisodeStream,
    episodes: int,
    batch: BatchSize,
    seed: int,
    watcher: Watcher | None = None,
) -> Floats:
    """Return the accuracies of the episodes 0 … `episodes` - 1 of a stream, class by class.

    Returns:
        [episodes, N] shares of the queries of label 0 … N-1 that are classified correctly. Classes have equally
        many queries, so that a row's mean is the accuracy of the episode.

    Raises:
        CellFailed: a score is not finite.
        Interrupted: `watcher` asked for it.
    """

    def accuracies(first: int, count: int) -> Tensor:
        drawn = stream.batch(first, count)
        return class_accuracies(predict(algorithm, drawn, seed, first), drawn.query_y)

    return _in_batches(accuracies, episodes, batch, watcher)


def inductive_accuracies(
    algorithm: Algorithm,
    stream: EpisodeStream,
    episodes: int,
    batch: BatchSize,
    seed: int,
    watcher: Watcher | None = None,
) -> Floats:
    """Return the [episodes] accuracies where a query is classified without sight of the other queries.

    The first query of each class is classified, each as if it were the only query of its episode.

    Raises:
        CellFailed: a score is not finite, or is another where a query is indeed the only one.
        Interrupted: `watcher` asked for it.
    """

    def accuracies(first: int, count: int) -> Tensor:
        drawn = first_of_each_class(stream.batch(first, count))
        return credit(predict(algorithm, drawn, seed, first, alone=True), drawn.query_y).mean(dim=1)

    _check_alone(algorithm, first_of_each_class(stream.batch(0, 1)), seed)
    return _in_batches(accuracies, episodes, batch, watcher)


def _in_batches(
    accuracies: Callable[[int, int], Tensor], episodes: int, batch: BatchSize, watcher: Watcher | None
) -> Floats:
    """Return the accuracies of all episodes, from a function of the first of a batch and of their number."""
    found: list[Tensor] = []
    done = 0

    def next_batch(size: int) -> Tensor:
        return accuracies(done, min(size, episodes - done))

    while done < episodes:
        found.append(batch.fit(next_batch))
        done += len(found[-1])
        if watcher is not None:
            so_far = f"accuracy {float(torch.cat(found).mean()):.2%}" if len(found) % 10 == 1 else ""
            watcher.advance(done, so_far)
            if watcher.should_stop():
                raise Interrupted
    return torch.cat(found).cpu().numpy()


def first_of_each_class(drawn: Episodes) -> Episodes:
    """Return the same episodes with one query a class, in the order of the classes."""
    labels = torch.arange(drawn.way, device=drawn.query_y.device).expand(len(drawn), -1)
    chosen = (drawn.query_y.unsqueeze(1) == labels.unsqueeze(2)).int().argmax(dim=2)
    queries = drawn.query_x[torch.arange(len(drawn), device=chosen.device).unsqueeze(1), chosen]
    return Episodes(drawn.support_x, drawn.support_y, queries, labels, drawn.way)


def _check_alone(algorithm: Algorithm, drawn: Episodes, seed: int) -> None:
    """Compare the scores of `predict_alone` with those of episodes that have a single query."""
    scores = predict(algorithm, drawn, seed, 0, alone=True)
    for query in range(drawn.way):
        only = replace(drawn, query_x=drawn.query_x[:, [query]], query_y=drawn.query_y[:, [query]])
        if _moved(predict(algorithm, only, seed, 0), scores[:, [query]]):
            raise CellFailed(
                "predict_alone returns other scores than predict does for an episode of one query: "
                "correct it, or use `metabench.api.Algorithm.predict_alone`"
            )


def flops(algorithm: Algorithm, stream: EpisodeStream, seed: int) -> int:
    """Return the floating-point operations of one episode's adaptation and predictions.

    Convolutions and matrix products are counted, a multiplication and an addition as two.
    """
    counter = FlopCounterMode(display=False)
    # The counter sees what is done in its own thread.
    batching, algorithm.batching = algorithm.batching, Sequential()
    try:
        with counter:
            predict(algorithm, stream.batch(0, 1), seed, 0)
    finally:
        algorithm.batching = batching
    return counter.get_total_flops()


def class_accuracies(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the [B, N] share of the queries of each class that are classified correctly; see `credit`."""
    of_class = nn.functional.one_hot(labels, scores.shape[-1]).double()
    return torch.einsum("bm,bmn->bn", credit(scores, labels), of_class) / of_class.sum(dim=1)


def credit(scores: Tensor, labels: Tensor) -> Tensor:
    """Return for each query whether it is classified correctly: 1 or 0, or in between for a tie.

    Classes that tie for the largest score share the credit: a constant score earns 1/N, whatever the labels.

    Args:
        scores: [B, M, N].
        labels: [B, M].

    Returns:
        [B, M] in float64.

    Raises:
        CellFailed: a score is not finite.
    """
    if not bool(torch.isfinite(scores).all()):
        raise CellFailed("a prediction is not finite: the trained weights, or the adaptation, diverged")
    best = scores == scores.max(dim=-1, keepdim=True).values
    share = best.double() / best.sum(dim=-1, keepdim=True)
    return share.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def is_transductive(algorithm: Algorithm, stream: EpisodeStream, seed: int, episodes: int = PROBE_EPISODES) -> bool:
    """Return whether a query's scores move when the other queries of its episode are exchanged.

    The first half of the queries stays; the second half is taken from episodes that are not in the batch, so that a
    method that mixes the episodes of a batch is found out, too.
    """
    drawn, others = stream.batch(0, episodes), stream.batch(episodes, episodes)
    kept = drawn.query_x.shape[1] // 2
    exchanged = torch.cat([drawn.query_x[:, :kept], others.query_x[:, kept:]], dim=1)
    before = predict(algorithm, drawn, seed, 0)[:, :kept]
    other = Episodes(drawn.support_x, drawn.support_y, exchanged, drawn.query_y, drawn.way)
    after = predict(algorithm, other, seed, 0)[:, :kept]
    return _moved(before, after)


def _moved(before: Tensor, after: Tensor) -> bool:
    """Return whether scores differ by more than rounding does."""
    scale = (before.max() - before.min()).clamp_min(1e-12)
    return bool((before - after).abs().max() > PROBE_TOLERANCE * scale)


def latency_ms(algorithm: Algorithm, stream: EpisodeStream, seed: int, device: torch.device) -> dict[str, float]:
    """Return the median and 95th percentile of one episode at a time, its tensors already on the device."""
    seconds = []
    for i in range(LATENCY_WARM_UP + LATENCY_EPISODES):
        drawn = stream.batch(i, 1)
        watch = Stopwatch(device)
        with watch.running():
            predict(algorithm, drawn, seed, i)
        seconds.append(watch.seconds)
    return percentiles_ms(seconds[LATENCY_WARM_UP:])


def predict(algorithm: Algorithm, episodes: Episodes, seed: int, first: int, alone: bool = False) -> Tensor:
    """Return [B, M, N] scores, without the graph that an algorithm may leave on them."""
    algorithm.eval()
    torch.manual_seed(derive_seed(seed, f"predict {first}"))
    classify = algorithm.predict_alone if alone else algorithm.predict
    return classify(episodes.support_x, episodes.support_y, episodes.query_x, episodes.way).detach()
