"""Episodes as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Episodes:
    """A batch of B episodes on the device.

    Attributes:
        support_x: [B, N·K, C, H, W] float support images.
        support_y: [B, N·K] support labels 0 … N-1.
        query_x: [B, M, C, H, W] float queries, in random order.
        query_y: [B, M] query labels 0 … N-1.
        way: N.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    way: int

    def __len__(self) -> int:
        return len(self.support_x)

    def __getitem__(self, part: slice) -> Episodes:
        """Return some of the episodes, e.g. ``episodes[2:3]``."""
        support_x, support_y = self.support_x[part], self.support_y[part]
        return Episodes(support_x, support_y, self.query_x[part], self.query_y[part], self.way)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield ``(support_x, support_y, query_x, query_y)`` of each episode."""
        return iter(zip(self.support_x, self.support_y, self.query_x, self.query_y, strict=True))
