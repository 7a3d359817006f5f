"""Contestants of higher, as in its MAML example."""

from __future__ import annotations

import itertools
from pathlib import Path

import higher
import torch
from contestants import CHECKED_TASKS, INNER_RATE, OUTER_RATE, TEST_INNER_STEPS, Contestant
from network import initial_classifier
from prepared import Task, load_episodes
from torch import Tensor, nn
from torch.nn import functional as F


def query_loss(network: nn.Module, inner: torch.optim.Optimizer, task: Task, scale: float) -> Tensor:
    """Return the query loss after one inner step.

    Its gradient, times `scale`, is added to the network's gradients.
    """
    support_x, support_y, query_x, query_y = task
    context = higher.innerloop_ctx(network, inner, copy_initial_weights=False, track_higher_grads=True)
    with context as (adapted, optimiser):
        optimiser.step(F.cross_entropy(adapted(support_x), support_y))
        loss = F.cross_entropy(adapted(query_x), query_y)
        (loss * scale).backward()
    return loss.detach()


def adapted_scores(network: nn.Module, inner: torch.optim.Optimizer, task: Task) -> Tensor:
    """Return [M, N] query scores after the inner loop."""
    support_x, support_y, query_x, _ = task
    with higher.innerloop_ctx(network, inner, track_higher_grads=False) as (adapted, optimiser):
        for _ in range(TEST_INNER_STEPS):
            optimiser.step(F.cross_entropy(adapted(support_x), support_y))
        with torch.no_grad():
            return adapted(query_x)


def maml_step(data: Path) -> Contestant:
    """Train MAML on prepared meta-batches."""
    network = initial_classifier()
    inner = torch.optim.SGD(network.parameters(), lr=INNER_RATE)
    optimiser = torch.optim.Adam(network.parameters(), lr=OUTER_RATE)
    batches = load_episodes(data, "train")
    coming = itertools.cycle(batches)

    def step() -> int:
        batch = next(coming)
        optimiser.zero_grad()
        for task in batch:
            query_loss(network, inner, task, 1 / len(batch))
        optimiser.step()
        return len(batch)

    return Contestant(
        step, lambda: [float(query_loss(network, inner, task, 0.0)) for task in batches[0][:CHECKED_TASKS]]
    )


def maml_adaptation(data: Path) -> Contestant:
    """Adapt to prepared episodes and predict."""
    network = initial_classifier()
    inner = torch.optim.SGD(network.parameters(), lr=INNER_RATE)
    batches = load_episodes(data, "test")
    coming = itertools.cycle(batches)

    def step() -> int:
        return len([adapted_scores(network, inner, task) for task in next(coming)])

    def check() -> list[float]:
        scores = torch.stack([adapted_scores(network, inner, task) for task in batches[0][:CHECKED_TASKS]])
        return scores.softmax(dim=-1).flatten().tolist()

    return Contestant(step, check)
