"""Advantages over a linear baseline of each task (Duan et al. 2016, https://arxiv.org/abs/1604.06778, supplement)."""

from __future__ import annotations

import torch
from torch import Tensor

from metabench_rl.api import Trajectories

#: Weight of the ridge penalty of the baseline.
_RIDGE = 1e-5


def advantages(trajectories: Trajectories, discount: float, gae_lambda: float) -> Tensor:
    """Return the [B, T, H] generalised advantages (Schulman et al. 2016), normalised for each task.

    Args:
        trajectories: T episodes of each of B tasks.
        discount: discount of a later reward.
        gae_lambda: λ; 1 takes whole returns.
    """
    alive, rewards = trajectories.alive, trajectories.rewards
    returns = _sums(rewards, discount)
    values = _baseline(trajectories.observations, returns, alive) * alive
    following = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], dim=-1)
    found = _sums(rewards + discount * following - values, discount * gae_lambda) * alive
    steps = alive.sum(dim=(1, 2), keepdim=True)
    centred = (found - found.sum(dim=(1, 2), keepdim=True) / steps) * alive
    return centred / ((centred.square().sum(dim=(1, 2), keepdim=True) / steps).sqrt() + 1e-8)


def _sums(x: Tensor, discount: float) -> Tensor:
    """Return the discounted sums of each step and those after it, along the last dimension."""
    sums, total = torch.empty_like(x), torch.zeros_like(x[..., 0])
    for step in reversed(range(x.shape[-1])):
        total = x[..., step] + discount * total
        sums[..., step] = total
    return sums


def _baseline(observations: Tensor, returns: Tensor, alive: Tensor) -> Tensor:
    """Return the [B, T, H] values of a ridge regression on observations, their squares and three powers of time."""
    tasks, trajectories, horizon, _ = observations.shape
    x = observations.double().clamp(-10, 10)
    time = (torch.arange(horizon, dtype=x.dtype) / 100).expand(tasks, trajectories, horizon).unsqueeze(-1)
    features = torch.cat([x, x.square(), time, time.square(), time**3, torch.ones_like(time)], dim=-1)
    features = features.flatten(1, 2)
    seen = features * alive.flatten(1, 2).unsqueeze(-1)
    gram = seen.mT @ seen + _RIDGE * torch.eye(features.shape[-1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, seen.mT @ returns.double().flatten(1, 2).unsqueeze(-1))
    values: Tensor = (features @ weights).view(tasks, trajectories, horizon).to(returns.dtype)
    return values
