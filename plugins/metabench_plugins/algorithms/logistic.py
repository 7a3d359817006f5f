"""Multinomial logistic regression of a few feature vectors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearLayer:
    """A linear classifier of the N classes of an episode.

    Attributes:
        weight: [N, D] weights.
        bias: [N] intercepts.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return [n, N] scores of [n, D] features."""
        return x @ self.weight.T + self.bias


def fitted(x: Tensor, labels: Tensor, inverse_penalty: float, steps: int) -> LinearLayer:
    """Return the multinomial logistic regression of features.

    It minimises C · Σ cross-entropy + |weight|² / 2; the intercept has no penalty. The weights are sums of features, so
    that a step is a product of matrices with a row for each of them. A step is Newton's with the curvature's
    upper bound ½ in the place of the curvature, whose matrix is the same in all steps (Böhning 1992,
    https://doi.org/10.1007/BF00048682), and Nesterov's momentum, which begins anew where it points uphill (O'Donoghue &
    Candès 2015, https://arxiv.org/abs/1204.3982).

    Args:
        x: [S, D] features.
        labels: [S, N] one-hot labels.
        inverse_penalty: C.
        steps: number of steps.
    """
    size = len(x)
    products, ones = x @ x.T, x.new_ones(size, 1)
    # The coefficients a of the features and the intercept b after a step from scores z solve
    # (K / 2 + I / C) a + 1 b / 2 = z / 2 + labels - softmax(z) and 1ᵀ a = 0.
    system = torch.cat(
        [
            torch.cat([products / 2 + torch.eye(size, dtype=x.dtype, device=x.device) / inverse_penalty, ones / 2], 1),
            torch.cat([ones.T, x.new_zeros(1, 1)], 1),
        ]
    )
    solution = torch.linalg.inv(system)[:, :size]
    of_scores = torch.cat([products, ones], 1) @ solution

    def target(z: Tensor) -> Tensor:
        return z / 2 + labels - z.softmax(dim=1)

    z = ahead = torch.zeros_like(labels)
    speed = x.new_ones(())
    for _ in range(steps):
        after = of_scores @ target(ahead)
        uphill = ((ahead - after) * (after - z)).sum() > 0
        faster = torch.where(uphill, 1.0, (1 + (1 + 4 * speed.square()).sqrt()) / 2)
        ahead = after + torch.where(uphill, 0.0, (speed - 1) / faster) * (after - z)
        z, speed = after, faster
    coefficients = solution @ target(z)
    return LinearLayer(coefficients[:-1].T @ x, coefficients[-1])
