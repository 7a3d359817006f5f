"""Episodes as tensors: indices from the sampler, images by one gather on the device."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from metabench.api import Episodes, Split
from metabench.data.sampler import EpisodeIndices, EpisodeSampler, EpisodeShape, IntArray
from metabench.planning.plan import Cell

#: Episodes that are drawn at once.
_AHEAD = 256


class EpisodeStream:
    """The episodes of one split, as tensors on one device.

    Args:
        split: its images, moved to the device once.
        shape: way, shot and queries.
        stream: names the sequence of episodes.
        seed: another seed is another sequence.
        device: where the tensors are.

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
        drawn = self._draw(first, count)
        return Episodes(
            support_x=self._gather(torch.from_numpy(drawn.support)),
            support_y=torch.from_numpy(drawn.support_labels.copy()).to(self._device),
            query_x=self._gather(torch.from_numpy(drawn.query)),
            query_y=torch.from_numpy(drawn.query_labels).to(self._device),
            way=self._way,
        )

    def classes(self, first: int, count: int) -> IntArray:
        """Return the [count, N] classes of the split that have label 0 … N-1 in these episodes."""
        return self._draw(first, count).classes

    def groups(self, first: int, count: int) -> IntArray:
        """Return the [count, N] groups of those classes; see `metabench.api.Split`."""
        return self._groups[self.classes(first, count)]

    def _draw(self, first: int, count: int) -> EpisodeIndices:
        """Draw ahead: drawing many episodes at once costs little more than drawing one."""
        start = first - self._ahead_from
        if self._ahead is None or start < 0 or start + count > len(self._ahead.classes):
            self._ahead, self._ahead_from, start = self._sampler.draw(first, max(count, _AHEAD)), first, 0
        return self._ahead[start : start + count]

    def _gather(self, indices: Tensor) -> Tensor:
        """Return the normalised images at [B, n] indices, as [B, n, C, H, W] floats."""
        images = self._images[indices.to(self._device)]
        return images.float().div_(255).sub_(self._mean).div_(self._std)


def training_stream(cell: Cell, splits: Mapping[str, Split], device: torch.device) -> EpisodeStream:
    """Return the training episodes of a cell."""
    return _stream(cell, splits, "train", cell.train.shape, cell.seed, device)


def validation_stream(
    cell: Cell, splits: Mapping[str, Split], shape: EpisodeShape, device: torch.device
) -> EpisodeStream:
    """Return the validation episodes of a shape, by which the weights of a cell are chosen."""
    return _stream(cell, splits, "val", shape, cell.test.seed, device)


def evaluation_stream(cell: Cell, splits: Mapping[str, Split], device: torch.device) -> EpisodeStream:
    """Return the test episodes of a cell: the same for every algorithm, backbone and training seed."""
    return _stream(cell, splits, "test", cell.shape, cell.test.seed, device)


def _stream(
    cell: Cell, splits: Mapping[str, Split], name: str, shape: EpisodeShape, seed: int, device: torch.device
) -> EpisodeStream:
    # The name says what the images are, not who learns from them: all algorithms see the same episodes.
    stream = f"{cell.dataset.name}|{sorted(cell.dataset.params.items())}|{name}"
    return EpisodeStream(splits[name], shape, stream, seed, device)
