"""Tasks: what an episode asks for, and the loss of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Classification:
    """Assign each query to one of N classes.

    An answer is [M, N] scores; the largest score of a query is its prediction.

    Attributes:
        way: N.
    """

    kind: ClassVar[str] = "classification"

    way: int

    @property
    def outputs(self) -> int:
        """N, the length of the answer to a query."""
        return self.way

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of [M, N] scores and [M] labels."""
        return F.cross_entropy(scores, labels)


@dataclass(frozen=True)
class Regression:
    """Tell D numbers of each query.

    An answer is [M, D] numbers.

    Attributes:
        outputs: D, the length of the answer to a query.
    """

    kind: ClassVar[str] = "regression"

    outputs: int

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error of [M, D] predictions and [M, D] targets."""
        return F.mse_loss(predictions, targets)


Task = Classification | Regression


def way_of(task: Task) -> int:
    """Return N, the number of classes.

    Raises:
        TypeError: the task has no classes.
    """
    if isinstance(task, Classification):
        return task.way
    raise TypeError("a regression has no classes: its episodes have no way")
