"""Tasks: what an episode asks for, and the loss of an answer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Classification:
    """Assign each query to one of N classes.

    An answer is [M, N] scores; the largest score of a query is its prediction.

    Attributes:
        way: N.
    """

    way: int

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of [M, N] scores and [M] labels."""
        return F.cross_entropy(scores, labels)
