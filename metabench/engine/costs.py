"""Measure the latency and the operations of one test episode."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metabench.api import Algorithm, Episodes
from metabench.api.batching import Sequential
from metabench.engine.asking import predict
from metabench.engine.streams import Stream
from metabench.machine.clock import Stopwatch, percentiles_ms

#: Largest number of episodes timed one by one for the latency.
LATENCY_EPISODES = 30
#: Number of untimed episodes before them.
LATENCY_WARM_UP = 3
#: Largest number of episodes whose two parts are timed.
LATENCY_PARTS = 5
#: Seconds after which no further episode is timed, or warms up, once one is: large networks are as fast each time.
LATENCY_SECONDS = 3.0
#: The same for the embedding of episodes whose features are kept.
EMBEDDING_SECONDS = 0.5


def flops(algorithm: Algorithm, stream: Stream, seed: int) -> int:
    """Return the floating-point operations of one episode's adaptation and predictions.

    Convolutions and matrix products count, from the images; a multiplication and an addition are two operations. Where
    features are kept, one image is embedded, and counts for each of the episode.
    """
    episodes = stream.batch(0, 1)
    # The counter sees only its own thread.
    batching, algorithm.batching = algorithm.batching, Sequential()
    try:
        counted = _flops_of(lambda: predict(algorithm, episodes, seed, 0))
    finally:
        algorithm.batching = batching
    if stream.images is stream:
        return counted
    images = episodes.support_x.shape[1] + episodes.query_x.shape[1]
    return counted + images * _flops_of(lambda: algorithm.backbone(_one_image(stream)))


@torch.no_grad()
def _flops_of(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    total: int = counter.get_total_flops()
    return total


def _one_image(stream: Stream) -> Tensor:
    """Return a support image of the first episode, of shape [1, C, H, W]."""
    return stream.images.batch(0, 1).support_x[0, :1]


@dataclass(frozen=True)
class Latencies:
    """Times of single episodes, each a median and a 95th percentile in milliseconds.

    Attributes:
        whole: time of an episode.
        adapt: time until the algorithm has adapted; None if the backbone embeds support and queries together.
        answer: time to answer all queries after that.
    """

    whole: dict[str, float]
    adapt: dict[str, float] | None
    answer: dict[str, float] | None


def latencies(algorithm: Algorithm, stream: Stream, seed: int, device: torch.device, episodes: int) -> Latencies:
    """Time episodes one by one, whole and in their two parts.

    An episode's images are on the device before the clock starts. Where features are kept, the images are embedded
    apart from the algorithm, and the median time of that is part of every episode's.

    Args:
        algorithm: the trained algorithm.
        stream: the test episodes.
        seed: seed of the algorithm's random draws.
        device: the device that it runs on.
        episodes: number of timed episodes, at most `LATENCY_EPISODES`, and as many as `LATENCY_SECONDS` allow.
    """
    embedding = _embedding_seconds(algorithm, stream, device) if stream.images is not stream else (0.0, 0.0)
    begun = time.perf_counter()
    seconds: list[float] = []
    parts: list[tuple[float, float]] = []
    # A GPU may vectorise whole episodes, but never the parts: let it warm up for them.
    apart = algorithm.reads == "images" or algorithm.backbone.per_image
    for i in range(LATENCY_WARM_UP + min(episodes, LATENCY_EPISODES)):
        episode = stream.batch(i, 1)
        watch = Stopwatch(device)
        with watch.running():
            predict(algorithm, episode, seed, i)
        seconds.append(watch.seconds + sum(embedding))
        if apart and i < 1 + LATENCY_PARTS:
            adapt, answer = _seconds_apart(algorithm, episode, device)
            parts.append((adapt + embedding[0], answer + embedding[1]))
        if i and time.perf_counter() - begun > LATENCY_SECONDS:
            break
    whole = percentiles_ms(seconds[min(LATENCY_WARM_UP, len(seconds) - 1) :])
    if not apart:
        return Latencies(whole, None, None)
    adapts, answers = zip(*parts[1:], strict=True)
    return Latencies(whole, percentiles_ms(list(adapts)), percentiles_ms(list(answers)))


@torch.no_grad()
def _embedding_seconds(algorithm: Algorithm, stream: Stream, device: torch.device) -> tuple[float, float]:
    """Return the median times to embed the support images of an episode, and its queries.

    The first episode counts only if it takes so long that no other one is timed.
    """
    algorithm.backbone(_one_image(stream))  # what a first pass loads would count for an episode that is timed alone
    begun = time.perf_counter()
    times: list[tuple[float, float]] = []
    for i in range(1 + LATENCY_PARTS):
        (episode,) = stream.images.batch(i, 1)
        support, query = Stopwatch(device), Stopwatch(device)
        with support.running():
            algorithm.backbone(episode.support.x)
        with query.running():
            algorithm.backbone(episode.query_x)
        times.append((support.seconds, query.seconds))
        if time.perf_counter() - begun > EMBEDDING_SECONDS:
            break
    of_support, of_query = zip(*(times[1:] or times), strict=True)
    return statistics.median(of_support), statistics.median(of_query)


@torch.no_grad()
def _seconds_apart(algorithm: Algorithm, episodes: Episodes, device: torch.device) -> tuple[float, float]:
    """Return the time to adapt to one episode, and the time to answer its queries."""
    (episode,) = episodes
    embedded = algorithm.backbone if algorithm.reads == "features" and not episodes.embedded else nn.Identity()
    adapt, answer = Stopwatch(device), Stopwatch(device)
    with adapt.running():
        state = algorithm.adapt(replace(episode.support, x=embedded(episode.support.x)))
    with answer.running():
        algorithm.answer(state, embedded(episode.query_x))
    return adapt.seconds, answer.seconds
