"""Surrogate objectives of policy gradients, of B tasks at once, and steps down them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metabench_rl.api import Algorithm, Trajectories


def surrogate(log_probs: Tensor, advantages: Tensor, trajectories: Trajectories) -> Tensor:
    """Return the [B] losses whose gradient, where the policy is the one that acted, is REINFORCE's."""
    ratio = torch.exp(log_probs - trajectories.log_probs)
    return -_mean(ratio * advantages, trajectories.alive)


def clipped_surrogate(log_probs: Tensor, advantages: Tensor, trajectories: Trajectories, clip: float) -> Tensor:
    """Return the [B] losses of PPO (Schulman et al. 2017, equation 7)."""
    ratio = torch.exp(log_probs - trajectories.log_probs)
    lower = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -_mean(lower, trajectories.alive)


def _mean(x: Tensor, alive: Tensor) -> Tensor:
    """Return the [B] means of [B, T, H] values over the steps of the episodes."""
    return (x * alive).sum(dim=(1, 2)) / alive.sum(dim=(1, 2))


def descend(loss: Tensor, algorithm: Algorithm, largest: float) -> None:
    """Make a step of an algorithm's optimiser down a loss.

    Args:
        loss: the scalar loss.
        algorithm: the algorithm, whose weights change.
        largest: bound of the norm of the gradient.
    """
    algorithm.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(algorithm.parameters(), largest)
    algorithm.optimiser.step()
