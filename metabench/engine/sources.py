"""A stream of the episodes that a source makes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from metabench.api import Episodes, Regression, Rollouts, SourceSplit
from metabench.data.permutations import Permutations
from metabench.data.sampler import EpisodeShape, IntArray, episode_words, sampler_key
from metabench.engine.features import FEATURES_AT_ONCE
from metabench.errors import CellFailed

#: Bits of a random word that a float64 holds.
_BITS = 53


class SourceStream:
    """The episodes of one split of a source, as tensors on one device; they have no classes.

    Args:
        split: the split.
        shape: shot and queries of the episodes.
        seed: seed of the sequence.
        device: the device of the tensors.

    Raises:
        ValueError: the split has no episodes of this shape.
    """

    def __init__(self, split: SourceSplit, shape: EpisodeShape, seed: int, device: torch.device) -> None:
        self._split, self._shape, self._device = split, shape, device
        self._key = sampler_key(split.name, shape, seed)
        self.task: Regression = split.source.task
        self.image_shape, self.varies = split.input_shape, False
        self.at_once = FEATURES_AT_ONCE if device.type == "cpu" else None
        if problem := split.misfit(shape.shot, shape.queries):
            raise ValueError(problem)
        tasks = split.source.tasks(split.name)
        self._order = None if tasks is None else Permutations(tasks, self._key, seed)
        self._tasks = tasks or 0

    @property
    def images(self) -> SourceStream:
        """Return the stream itself: its inputs are no features."""
        return self

    def batch(self, first: int, count: int) -> Episodes:
        """Return the episodes `first` … `first + count - 1`.

        Raises:
            CellFailed: the source returns other shapes or types than it declares, or numbers that are not finite.
        """
        return self._made(self.uniform(first, count), self._shape.queries)

    def dense(self, number: int, queries: int) -> Episodes:
        """Return an episode with its support set and other queries, of evenly spread numbers.

        Args:
            number: number of the episode.
            queries: number of queries.

        Raises:
            CellFailed: as `batch`.
        """
        source, shot = self._split.source, self._shape.shot
        begins = source.draws(shot, 0)
        per_query = (source.draws(shot, queries) - begins) // queries
        spread = ((torch.arange(queries, dtype=torch.float64) + 0.5) / queries).repeat_interleave(per_query)
        uniform = torch.cat([self.uniform(number, 1)[:, :begins], spread.unsqueeze(0)], dim=1)
        return self._made(uniform, queries)

    def chances(self, first: int, count: int) -> npt.NDArray[np.float64]:
        """Return [count] ones: a regression is not guessed."""
        return np.ones(count)

    def classes(self, first: int, count: int) -> IntArray:
        """Return [count, 0]: no classes."""
        return np.empty((count, 0), np.int64)

    def groups(self, first: int, count: int) -> IntArray:
        """Return the [count, 1] tasks of the episodes, of a split with a number of them; else [count, 0]."""
        if self._order is None:
            return self.classes(first, count)
        places = [divmod(number, self._tasks) for number in range(first, first + count)]
        tasks = [int(self._order.epoch(epoch)[place]) for epoch, place in places]
        return np.array(tasks, np.int64).reshape(count, 1)

    def uniform(self, first: int, count: int) -> torch.Tensor:
        """Return the [count, draws] numbers that the source makes episodes from."""
        draws = self._split.source.draws(self._shape.shot, self._shape.queries)
        words = episode_words(self._key, first, count, draws)[:, :draws]
        numbers = (words >> np.uint64(64 - _BITS)).astype(np.float64) / 2.0**_BITS
        if self._order is not None:
            numbers[:, 0] = (self.groups(first, count)[:, 0] + 0.5) / self._tasks
        return torch.from_numpy(numbers)

    @property
    def name(self) -> str:
        """Return the name of the split."""
        return self._split.name

    @property
    def rollouts(self) -> Rollouts | None:
        """Return the source's test of what adapted learners do."""
        return self._split.source.rollouts

    def _made(self, uniform: torch.Tensor, queries: int) -> Episodes:
        """Return the checked episodes of [B, draws] numbers."""
        source, shot, count = self._split.source, self._shape.shot, len(uniform)
        made = source.episodes(uniform, self._split.name, shot, queries)
        names = ("support_x", "support_y", "query_x", "query_y")
        support, asked = source.points * shot, source.points * queries
        sizes = {"support_x": support, "support_y": support, "query_x": asked, "query_y": asked}
        tensors = {name: getattr(made, name) for name in names}
        for name, tensor in tensors.items():
            tail = source.input_shape if name.endswith("x") else (source.task.outputs,)
            expected = (count, sizes[name], *tail)
            if tensor.shape != expected or tensor.dtype != torch.float32:
                raise CellFailed(
                    f"{type(source).__name__}.episodes returned {name} of shape {tuple(tensor.shape)} and "
                    f"{tensor.dtype}, not {expected} and torch.float32"
                )
            if not bool(tensor.isfinite().all()):
                raise CellFailed(f"{type(source).__name__}.episodes returned a {name} that is not finite")
        return Episodes(**{name: tensor.to(self._device) for name, tensor in tensors.items()}, task=source.task)
