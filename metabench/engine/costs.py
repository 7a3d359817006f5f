"""Measure the latency and the operations of one test episode."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from metabench.api import Algorithm
from metabench.api.batching import Sequential
from metabench.engine.evaluation import predict
from metabench.engine.streams import EpisodeStream
from metabench.machine.clock import Stopwatch, percentiles_ms

#: Largest number of episodes timed one by one for the latency.
LATENCY_EPISODES = 30
#: Number of untimed episodes before them.
LATENCY_WARM_UP = 3


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
