"""Sums over the support images of each class."""

from __future__ import annotations

import torch
from torch import Tensor


def log_sum_per_class(values: Tensor, labels: Tensor, way: int) -> Tensor:
    """Return the [M, N] logarithms of the sums of exp([M, S] values) over the images of each class.

    Args:
        values: [M, S], one for each query and support image.
        labels: [S] labels 0 … N-1.
        way: N.
    """
    other_class = labels.unsqueeze(0) != torch.arange(way, device=labels.device).unsqueeze(1)
    return values.unsqueeze(1).masked_fill(other_class, -torch.inf).logsumexp(dim=-1)
