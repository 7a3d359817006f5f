"""Sums over the support images of each class."""

from __future__ import annotations

import torch
from torch import Tensor


def log_sum_per_class(values: Tensor, labels: Tensor, way: int) -> Tensor:
    """Return log Σ exp(values) over each class's support images.

    Args:
        values: [M, S] values of each query and support image.
        labels: [S] support labels 0 … N-1.
        way: number of classes N.

    Returns:
        [M, N] logarithms of sums.
    """
    other_class = labels.unsqueeze(0) != torch.arange(way, device=labels.device).unsqueeze(1)
    return values.unsqueeze(1).masked_fill(other_class, -torch.inf).logsumexp(dim=-1)
