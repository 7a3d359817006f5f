"""Rows: what the indices of an episode point into."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator

import torch
from torch import Tensor

#: Bytes of the rows of one part.
_AT_ONCE = 2**25


class Rows(abc.ABC):
    """The images or vectors of a split, of which episodes take some at a time.

    Attributes:
        shape: the shape of a row: (C, H, W) of an image, (D,) of a vector.
        dtype: uint8 of images, float32 of vectors.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abc.abstractmethod
    def take(self, index: Tensor) -> Tensor:
        """Return the [n, *shape] rows at [n] indices."""

    def to(self, device: torch.device) -> Rows:
        """Return the rows in the memory of a device; by default, as they are."""
        return self

    def subset(self, index: Tensor) -> Rows:
        """Return the rows at [n] indices as rows of their own, without a copy."""
        return _SomeRows(self, index)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all rows."""
        return len(self) * math.prod(self.shape) * self.dtype.itemsize

    def parts(self) -> Iterator[Tensor]:
        """Yield all rows in order, [k, *shape] at a time: some ten megabytes."""
        at_once = max(1, _AT_ONCE * len(self) // max(1, self.nbytes))
        for part in torch.split(torch.arange(len(self)), at_once):
            yield self.take(part)


class TensorRows(Rows):
    """The rows of a tensor, which is in memory or a mapped file.

    Args:
        data: [m, *shape] rows.
        order: [n] index in `data` of each row; None takes all in order.
    """

    def __init__(self, data: Tensor, order: Tensor | None = None) -> None:
        self._data, self._order = data, order
        self.shape, self.dtype = tuple(data.shape[1:]), data.dtype

    @property
    def device(self) -> torch.device:
        """Return the device that holds the rows."""
        return self._data.device

    def __len__(self) -> int:
        return len(self._data if self._order is None else self._order)

    def take(self, index: Tensor) -> Tensor:
        """See `Rows.take`."""
        index = index.to(self.device)
        return self._data.index_select(0, index if self._order is None else self._order[index])

    def to(self, device: torch.device) -> Rows:
        """Return the rows in the memory of a device; a mapped file stays where it is on a CPU."""
        if device == self.device:
            return self
        data = self._data if self._order is None else self._data.index_select(0, self._order)
        return TensorRows(data.to(device))

    def subset(self, index: Tensor) -> TensorRows:
        """See `Rows.subset`."""
        index = index.to(self.device)
        return TensorRows(self._data, index if self._order is None else self._order[index])


class _SomeRows(Rows):
    """Some of the rows of others.

    Args:
        rows: the others.
        index: [n] index in `rows` of each row.
    """

    def __init__(self, rows: Rows, index: Tensor) -> None:
        self._rows, self._index = rows, index
        self.shape, self.dtype = rows.shape, rows.dtype

    def __len__(self) -> int:
        return len(self._index)

    def take(self, index: Tensor) -> Tensor:
        """See `Rows.take`."""
        return self._rows.take(self._index[index.to(self._index.device)])

    def to(self, device: torch.device) -> Rows:
        """See `Rows.to`."""
        return _SomeRows(self._rows.to(device), self._index)
