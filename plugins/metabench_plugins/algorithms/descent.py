"""Gradient descent on the loss of a support set."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from metabench.api import Weights, gradients
from metabench_plugins.algorithms.foreach import foreach


def descended(
    loss: Callable[[Weights], Tensor],
    weights: Weights,
    steps: int,
    rate: float | Weights,
    differentiable: bool = False,
) -> Weights:
    """Return weights after gradient steps on a loss.

    Args:
        loss: the scalar loss of a support set as a function of the weights.
        weights: the weights before the first step.
        steps: number of steps.
        rate: step size; or those of each weight, tensors of the same names and shapes.
        differentiable: whether the result is differentiable through the gradients.
    """
    for _ in range(steps):
        slopes, _ = gradients(loss, weights, differentiable=differentiable)
        # With first-order gradients ∇ is a constant, and θ′ = θ - α∇ passes the gradient of L(θ′) on to θ.
        here, down = list(weights.values()), [slopes[name] for name in weights]
        if isinstance(rate, float):
            moved = foreach("add", here, down, alpha=-rate)
        else:
            moved = foreach("addcmul", here, [rate[name] for name in weights], down, value=-1)
        weights = dict(zip(weights, moved, strict=True))
    return weights
