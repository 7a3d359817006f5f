"""A stream of the episodes that a source makes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from metabench.api import Episodes, Regression, SourceSplit
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
    """

    def __init__(self, split: SourceSplit, shape: EpisodeShape, seed: int, device: torch.device) -> None:
        self._split, self._shape, self._device = split, shape, device
        self._key = sampler_key(split.name, shape, seed)
        self.task: Regression = split.source.task
        self.image_shape, self.varies = split.input_shape, False
        self.at_once = FEATURES_AT_ONCE if device.type == "cpu" else None

    @property
    def images(self) -> SourceStream:
        """Return the stream itself: its inputs are no features."""
        return self

    def batch(self, first: int, count: int) -> Episodes:
        """Return the episodes `first` … `first + count - 1`.

        Raises:
            CellFailed: the source returns other shapes or types than it declares, or numbers that are not finite.
        """
        return self._made(self._uniform(first, count), self._shape.queries)

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
        uniform = torch.cat([self._uniform(number, 1)[:, :begins], spread.unsqueeze(0)], dim=1)
        return self._made(uniform, queries)

    def chances(self, first: int, count: int) -> npt.NDArray[np.float64]:
        """Return [count] ones: a regression is not guessed."""
        return np.ones(count)

    def classes(self, first: int, count: int) -> IntArray:
        """Return [count, 0]: no classes."""
        return np.empty((count, 0), np.int64)

    def groups(self, first: int, count: int) -> IntArray:
        """Return [count, 0]: no groups."""
        return self.classes(first, count)

    def _uniform(self, first: int, count: int) -> torch.Tensor:
        """Return the [count, draws] numbers of episodes."""
        draws = self._split.source.draws(self._shape.shot, self._shape.queries)
        words = episode_words(self._key, first, count, draws)[:, :draws]
        return torch.from_numpy((words >> np.uint64(64 - _BITS)).astype(np.float64) / 2.0**_BITS)

    def _made(self, uniform: torch.Tensor, queries: int) -> Episodes:
        """Return the checked episodes of [B, draws] numbers."""
        source, shot, count = self._split.source, self._shape.shot, len(uniform)
        made = source.episodes(uniform, self._split.name, shot, queries)
        names = ("support_x", "support_y", "query_x", "query_y")
        sizes = {"support_x": shot, "support_y": shot, "query_x": queries, "query_y": queries}
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
