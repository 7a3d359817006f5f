"""Episodes as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from metabench.api.tasks import Task, way_of


@dataclass(frozen=True)
class Support:
    """The support set of one episode.

    Attributes:
        x: [S, C, H, W] float images; [S, D] vectors, or features for an algorithm that reads features.
        y: [S] labels 0 … N-1; [S, outputs] float targets of a regression.
        task: the task.
    """

    x: Tensor
    y: Tensor
    task: Task

    @property
    def way(self) -> int:
        """N, the number of classes."""
        return way_of(self.task)


@dataclass(frozen=True)
class Episode:
    """One training episode.

    Attributes:
        support: the support set.
        query_x: [M, C, H, W] float queries, in random order; [M, D] features for an algorithm that reads features.
        query_y: [M] labels 0 … N-1; [M, outputs] float targets of a regression.
    """

    support: Support
    query_x: Tensor
    query_y: Tensor

    @property
    def task(self) -> Task:
        """The task of the support set."""
        return self.support.task


@dataclass(frozen=True)
class Episodes:
    """A batch of B episodes on the device.

    Attributes:
        support_x: [B, S, C, H, W] float support images; [B, S, D] vectors.
        support_y: [B, S] support labels 0 … N-1; [B, S, outputs] float targets of a regression.
        query_x: [B, M, C, H, W] float queries, in random order; [B, M, D] vectors.
        query_y: [B, M] query labels 0 … N-1; [B, M, outputs] float targets of a regression.
        task: the task of each episode.
        embedded: whether the images are features already, [B, S, D] and [B, M, D].
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    task: Task
    embedded: bool = False

    @property
    def way(self) -> int:
        """N, the number of classes."""
        return way_of(self.task)

    def __len__(self) -> int:
        return len(self.support_x)

    def __getitem__(self, part: slice) -> Episodes:
        """Return some of the episodes, e.g. ``episodes[2:3]``."""
        support_x, support_y = self.support_x[part], self.support_y[part]
        return Episodes(support_x, support_y, self.query_x[part], self.query_y[part], self.task, self.embedded)

    def __iter__(self) -> Iterator[Episode]:
        """Yield each episode."""
        for support_x, support_y, query_x, query_y in zip(
            self.support_x, self.support_y, self.query_x, self.query_y, strict=True
        ):
            yield Episode(Support(support_x, support_y, self.task), query_x, query_y)
