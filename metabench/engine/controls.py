"""Control each test: may its predictions depend on anything but support set and query?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metabench.analysis.metrics import credit
from metabench.analysis.stats import Floats
from metabench.api import Algorithm, Classification, Task
from metabench.engine.asking import predict
from metabench.engine.evaluation import checked, in_batches
from metabench.engine.progress import Watcher
from metabench.engine.streams import Stream
from metabench.errors import CellFailed
from metabench.machine.memory import BatchSize
from metabench.machine.reproducible import derive_seed

#: Number of episodes in which queries or whole episodes are exchanged.
PROBE_EPISODES = 8
#: Number of episodes with shuffled support labels.
SHUFFLED_EPISODES = 50
#: Standard errors above chance that shuffled labels may reach; 50 fair coins exceed it once in ten million times.
SHUFFLED_ERRORS = 7.0
#: Largest difference of scores that counts as rounding, as a share of the scores' range.
TOLERANCE = 1e-4
#: Largest difference of a regression's numbers that another batching may make, as a share of their range.
ROUGH_TOLERANCE = 1e-2


def is_transductive(
    algorithm: Algorithm, stream: Stream, seed: int, batch: BatchSize, episodes: int = PROBE_EPISODES
) -> bool:
    """Return whether a query's scores depend on the other queries.

    The second half of each episode's queries is exchanged for queries of other episodes, and the scores of the first
    half are compared.
    """

    def moved(first: int, count: int) -> npt.NDArray[np.bool_]:
        original, others = stream.batch(first, count), stream.batch(episodes + first, count)
        kept = original.query_x.shape[1] // 2
        exchanged = torch.cat([original.query_x[:, :kept], others.query_x[:, kept:]], dim=1)
        # Two predictions, not two questions: features of one pass may depend on all images of the pass.
        episodes_of = (original, replace(original, query_x=exchanged))
        before, after = (predict(algorithm, drawn, seed, first)[:, :kept] for drawn in episodes_of)
        return np.full(count, _differ(before, after))

    return bool(in_batches(moved, episodes, batch).any())


def check_batch_independence(algorithm: Algorithm, stream: Stream, seed: int, batch: BatchSize) -> None:
    """Check that an episode's scores do not depend on the other episodes of its batch.

    The second half of a batch is exchanged for other episodes, and the scores of the first half are compared; then
    each of these episodes is predicted by itself.

    Raises:
        CellFailed: they depend on the other episodes.
    """

    size = min(batch.size, PROBE_EPISODES)
    kept = size // 2
    if not kept:
        return
    original, others = stream.batch(0, size), stream.batch(size, size)
    exchanged = replace(
        original,
        support_x=torch.cat([original.support_x[:kept], others.support_x[kept:]]),
        support_y=torch.cat([original.support_y[:kept], others.support_y[kept:]]),
        query_x=torch.cat([original.query_x[:kept], others.query_x[kept:]]),
        query_y=torch.cat([original.query_y[:kept], others.query_y[kept:]]),
    )
    before, after = (predict(algorithm, drawn, seed, 0)[:kept] for drawn in (original, exchanged))
    by_itself = torch.cat([predict(algorithm, original[i : i + 1], seed, i) for i in range(kept)])
    if _differ(before, after) or _decide_otherwise(before, by_itself, original.task):
        moved = max(_largest_move(before, scores) for scores in (after, by_itself))
        raise CellFailed(
            f"the scores of an episode depend on the other episodes of its batch (they move by up to {moved:.2g}): "
            "keep no state between episodes; a backbone is per_image only if no other image moves the features of one"
        )


def _decide_otherwise(before: Tensor, by_itself: Tensor, task: Task) -> bool:
    """Return whether scores of an episode predict otherwise by itself, where another batching may round otherwise."""
    if isinstance(task, Classification):
        return bool((before.argmax(-1) != by_itself.argmax(-1)).double().mean() > 0.1)
    return _largest_move(before, by_itself) > ROUGH_TOLERANCE * float(before.max() - before.min())


def check_shuffled_labels(
    algorithm: Algorithm, stream: Stream, seed: int, batch: BatchSize, watcher: Watcher | None = None
) -> None:
    """Check that shuffled support labels give the accuracy of chance (a negative control).

    The check comes after the test, so that an algorithm that remembers the test's predictions is found, too.

    Raises:
        CellFailed: the accuracy is above chance.
        Interrupted: `watcher` asked to stop.
    """
    chances = stream.chances(0, SHUFFLED_EPISODES)

    def shuffled_order(number: int, images: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(seed, f"shuffled labels {number}"))
        return torch.randperm(images, generator=generator)

    def accuracies(first: int, count: int) -> Floats:
        drawn = stream.batch(first, count)
        images = drawn.support_y.shape[1]
        orders = [shuffled_order(number, images) for number in range(first, first + count)]
        order = torch.stack(orders).to(drawn.support_y.device)
        shuffled = replace(drawn, support_y=drawn.support_y.gather(1, order))
        scores = checked(predict(algorithm, shuffled, seed, first))
        means: Floats = credit(scores, drawn.query_y.cpu().numpy()).mean(axis=1)
        return means

    results = in_batches(accuracies, SHUFFLED_EPISODES, batch, watcher)
    excess, chance = results - chances, float(chances.mean())
    error = float(excess.std(ddof=1)) / SHUFFLED_EPISODES**0.5
    if excess.mean() > SHUFFLED_ERRORS * error + 1e-6:
        raise CellFailed(
            f"with shuffled support labels the accuracy is {results.mean():.1%}, where chance is {chance:.1%}: the "
            "labels of queries leak, by the order of images, by normalisation, or by a cache of earlier predictions"
        )


def _differ(before: Tensor, after: Tensor) -> bool:
    """Return whether scores differ by more than rounding."""
    possible = before[before.isfinite()]
    scale = float(possible.max() - possible.min()) if len(possible) else 0.0
    return _largest_move(before, after) > TOLERANCE * max(scale, 1e-12)


def _largest_move(before: Tensor, after: Tensor) -> float:
    """Return the largest difference of scores; equal infinities do not differ."""
    return float(torch.where(before == after, 0.0, (before - after).abs()).max())
