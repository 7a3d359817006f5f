"""Streams of episodes as tensors on the device."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from metabench.api import Episodes, Split
from metabench.data.sampler import EpisodeIndices, EpisodeSampler, EpisodeShape, IntArray
from metabench.planning.plan import Cell

#: Number of episodes drawn ahead.
_AHEAD = 256


class EpisodeStream:
    """The episodes of one split, as tensors on one device.

    The sampler gives indices; one gather on the device gives their images.

    Args:
        split: the split; its images move to the device once.
        shape: way, shot and queries of the episodes.
        stream: name of the sequence of episodes.
        seed: seed of the sequence.
        device: the device of the tensors.

    Raises:
        ValueError: the split is too small for the shape.
    """

    def __init__(self, split: Split, shape: EpisodeShape, stream: str, seed: int, device: torch.device) -> None:
        self._sampler = EpisodeSampler(split.offsets.numpy(), shape, stream, seed)
        self._device = device
        self._images = split.images.to(device)
        self._mean = torch.tensor(split.mean, device=device).reshape(-1, 1, 1)
        self._std = torch.tensor(split.std, device=device).reshape(-1, 1, 1)
        self._way = shape.way
        self._groups = np.arange(split.size.classes) if split.groups is None else np.asarray(split.groups)
        self._ahead: EpisodeIndices | None = None
        self._ahead_from = 0

    def batch(self, first: int, count: int) -> Episodes:
        """Return the episodes `first` … `first + count - 1`."""
        indices = self._draw(first, count)
        return Episodes(
            support_x=self._gather(torch.from_numpy(indices.support)),
            support_y=torch.from_numpy(indices.support_labels.copy()).to(self._device),
            query_x=self._gather(torch.from_numpy(indices.query)),
            query_y=torch.from_numpy(indices.query_labels).to(self._device),
            way=self._way,
        )

    def classes(self, first: int, count: int) -> IntArray:
        """Return the [count, N] classes of the split behind the labels 0 … N-1."""
        return self._draw(first, count).classes

    def groups(self, first: int, count: int) -> IntArray:
        """Return the [count, N] groups of `classes` (`metabench.api.Split.groups`)."""
        return self._groups[self.classes(first, count)]

    def _draw(self, first: int, count: int) -> EpisodeIndices:
        """Return indices of episodes; draw ahead, because many cost little more than one."""
        start = first - self._ahead_from
        if self._ahead is None or start < 0 or start + count > len(self._ahead.classes):
            self._ahead, self._ahead_from, start = self._sampler.draw(first, max(count, _AHEAD)), first, 0
        return self._ahead[start : start + count]

    def _gather(self, indices: Tensor) -> Tensor:
        """Return the normalised [B, n, C, H, W] images at [B, n] indices."""
        images = self._images[indices.to(self._device)]
        return images.float().div_(255).sub_(self._mean).div_(self._std)


def training_stream(cell: Cell, splits: Mapping[str, Split], device: torch.device) -> EpisodeStream:
    """Return the training episodes of a cell."""
    return _stream(cell, splits, "train", cell.train.shape, cell.seed, device)


def validation_stream(
    cell: Cell, splits: Mapping[str, Split], shape: EpisodeShape, device: torch.device
) -> EpisodeStream:
    """Return the validation episodes of a test shape."""
    return _stream(cell, splits, "val", shape, cell.test.seed, device)


def evaluation_stream(cell: Cell, splits: Mapping[str, Split], device: torch.device) -> EpisodeStream:
    """Return the test episodes of a cell.

    They do not depend on the algorithm, the backbone or the training seed.
    """
    return _stream(cell, splits, "test", cell.shape, cell.test.seed, device)


def _stream(
    cell: Cell, splits: Mapping[str, Split], name: str, shape: EpisodeShape, seed: int, device: torch.device
) -> EpisodeStream:
    # The name depends only on the images, so that all algorithms see the same episodes.
    stream = f"{cell.dataset.name}|{sorted(cell.dataset.params.items())}|{name}"
    return EpisodeStream(splits[name], shape, stream, seed, device)
