"""How good, how fast and how dependent on the other queries a trained algorithm's predictions are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metabench.api import Algorithm, Episodes
from metabench.errors import CellFailed
from metabench.measure import Stopwatch, percentiles_ms
from metabench.reproducible import derive_seed
from metabench.streams import EpisodeStream
from metabench.watching import Interrupted, Watcher

Floats = npt.NDArray[np.float64]

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
    batch: int,
    seed: int,
    watcher: Watcher | None = None,
) -> Floats:
    """Return the [episodes] accuracies of the episodes 0 … `episodes` - 1 of a stream.

    Raises:
        CellFailed: a score is not finite.
        Interrupted: `watcher` asked for it.
    """
    accuracies: list[Tensor] = []
    for first in range(0, episodes, batch):
        count = min(batch, episodes - first)
        drawn = stream.batch(first, count)
        accuracies.append(accuracy(predict(algorithm, drawn, seed, first), drawn.query_y))
        if watcher is not None:
            so_far = f"accuracy {float(torch.cat(accuracies).mean()):.2%}" if first // batch % 10 == 0 else ""
            watcher.advance(first + count, so_far)
            if watcher.should_stop():
                raise Interrupted
    return torch.cat(accuracies).cpu().numpy()


def accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the share of queries classified correctly, per episode.

    Classes that tie for the largest score share the credit: a constant score earns 1/N, whatever the labels.

    Args:
        scores: [B, M, N].
        labels: [B, M].

    Returns:
        [B] in float64.

    Raises:
        CellFailed: a score is not finite.
    """
    if not bool(torch.isfinite(scores).all()):
        raise CellFailed("a prediction is not finite: the trained weights, or the adaptation, diverged")
    best = scores == scores.max(dim=-1, keepdim=True).values
    credit = best.double() / best.sum(dim=-1, keepdim=True)
    return credit.gather(-1, labels.unsqueeze(-1)).squeeze(-1).mean(dim=-1)


def is_transductive(algorithm: Algorithm, stream: EpisodeStream, seed: int) -> bool:
    """Return whether a query's scores move when the other queries of its episode are exchanged.

    The first half of the queries stays; the second half is taken from the next episode.
    """
    drawn = stream.batch(0, PROBE_EPISODES)
    kept = drawn.query_x.shape[1] // 2
    exchanged = torch.cat([drawn.query_x[:, :kept], drawn.query_x.roll(1, dims=0)[:, kept:]], dim=1)
    before = predict(algorithm, drawn, seed, 0)[:, :kept]
    other = Episodes(drawn.support_x, drawn.support_y, exchanged, drawn.query_y, drawn.way)
    after = predict(algorithm, other, seed, 0)[:, :kept]
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


def predict(algorithm: Algorithm, episodes: Episodes, seed: int, first: int) -> Tensor:
    """Return [B, M, N] scores, without the graph that an algorithm may leave on them."""
    algorithm.eval()
    torch.manual_seed(derive_seed(seed, f"predict {first}"))
    return algorithm.predict(episodes.support_x, episodes.support_y, episodes.query_x, episodes.way).detach()
