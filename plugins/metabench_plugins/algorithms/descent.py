"""Gradient descent on the support set."""

from __future__ import annotations

from torch import Tensor

from metabench.api import Support, Weights, gradients, trained_weights
from metabench_plugins.algorithms.foreach import foreach
from metabench_plugins.algorithms.linear_head import LinearHead


def descended(learner: LinearHead, support: Support, steps: int, rate: float, differentiable: bool = False) -> Weights:
    """Return the weights of a learner after gradient steps on the task's loss of a support set.

    Args:
        learner: the learner.
        support: the support set.
        steps: number of steps.
        rate: step size.
        differentiable: whether the result is differentiable through the gradients.
    """
    weights: Weights = trained_weights(learner)

    def loss(weights: Weights) -> Tensor:
        return support.task.loss(learner.under(weights, support.x), support.y)

    for _ in range(steps):
        slopes, _ = gradients(loss, weights, differentiable=differentiable)
        # With first-order gradients ∇ is a constant, and θ′ = θ - α∇ passes the gradient of L(θ′) on to θ.
        moved = foreach("add", list(weights.values()), list(slopes.values()), alpha=-rate)
        weights = dict(zip(weights, moved, strict=True))
    return weights
