"""Contestants of a textbook MAML loop, with torch.func.functional_call and autograd.grad."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from contestants import CHECKED_TASKS, INNER_RATE, OUTER_RATE, TEST_INNER_STEPS, Contestant
from network import initial_classifier
from prepared import Task, load_episodes
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F


def query_loss(network: nn.Module, task: Task) -> Tensor:
    """Return the query loss after one differentiable inner step."""
    support_x, support_y, query_x, query_y = task
    weights = dict(network.named_parameters())
    loss = F.cross_entropy(functional_call(network, weights, (support_x,)), support_y)
    gradients = torch.autograd.grad(loss, tuple(weights.values()), create_graph=True)
    adapted = {
        name: weight - INNER_RATE * gradient
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }
    return F.cross_entropy(functional_call(network, adapted, (query_x,)), query_y)


def adapted_scores(network: nn.Module, task: Task) -> Tensor:
    """Return [M, N] query scores after the inner loop."""
    support_x, support_y, query_x, _ = task
    weights = {name: weight.detach().requires_grad_() for name, weight in network.named_parameters()}
    for _ in range(TEST_INNER_STEPS):
        loss = F.cross_entropy(functional_call(network, weights, (support_x,)), support_y)
        gradients = torch.autograd.grad(loss, tuple(weights.values()))
        weights = {
            name: (weight - INNER_RATE * gradient).detach().requires_grad_()
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }
    with torch.no_grad():
        return functional_call(network, weights, (query_x,))


def maml_step(data: Path) -> Contestant:
    """Train MAML on prepared meta-batches."""
    network = initial_classifier()
    optimiser = torch.optim.Adam(network.parameters(), lr=OUTER_RATE)
    batches = load_episodes(data, "train")
    coming = itertools.cycle(batches)

    def step() -> int:
        batch = next(coming)
        optimiser.zero_grad()
        for task in batch:
            (query_loss(network, task) / len(batch)).backward()
        optimiser.step()
        return len(batch)

    return Contestant(step, lambda: [float(query_loss(network, task)) for task in batches[0][:CHECKED_TASKS]])


def maml_adaptation(data: Path) -> Contestant:
    """Adapt to prepared episodes and predict."""
    network = initial_classifier()
    batches = load_episodes(data, "test")
    coming = itertools.cycle(batches)

    def step() -> int:
        return len([adapted_scores(network, task) for task in next(coming)])

    def check() -> list[float]:
        scores = torch.stack([adapted_scores(network, task) for task in batches[0][:CHECKED_TASKS]])
        return scores.softmax(dim=-1).flatten().tolist()

    return Contestant(step, check)
