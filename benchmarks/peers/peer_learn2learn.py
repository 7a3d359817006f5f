"""Contestants of learn2learn, as in its example maml_omniglot."""

from __future__ import annotations

import itertools
from pathlib import Path

import learn2learn as l2l
import torch
from contestants import (
    CHECKED_TASKS,
    INNER_RATE,
    OUTER_RATE,
    QUERIES,
    SHOT,
    TASKS,
    TEST_INNER_STEPS,
    WAY,
    Contestant,
)
from network import initial_classifier
from prepared import PARTS, Task, load_episodes, png_folder
from torch import Tensor
from torch.nn import functional as F
from torchvision.datasets import Omniglot


def query_loss(maml: l2l.algorithms.MAML, task: Task) -> Tensor:
    """Return the query loss after one differentiable inner step."""
    support_x, support_y, query_x, query_y = task
    learner = maml.clone()
    learner.adapt(F.cross_entropy(learner(support_x), support_y))
    return F.cross_entropy(learner(query_x), query_y)


def adapted_scores(maml: l2l.algorithms.MAML, task: Task) -> Tensor:
    """Return [M, N] query scores after the inner loop."""
    support_x, support_y, query_x, _ = task
    learner = maml.clone(first_order=True)
    for _ in range(TEST_INNER_STEPS):
        learner.adapt(F.cross_entropy(learner(support_x), support_y))
    with torch.no_grad():
        return learner(query_x)


class Trainer:
    """Trains MAML with its outer optimiser."""

    def __init__(self) -> None:
        self.maml = l2l.algorithms.MAML(initial_classifier(), lr=INNER_RATE, first_order=False)
        self._optimiser = torch.optim.Adam(self.maml.parameters(), lr=OUTER_RATE)

    def step(self, batch: list[Task]) -> int:
        """Make one outer update."""
        self._optimiser.zero_grad()
        for task in batch:
            query_loss(self.maml, task).backward()
        for weight in self.maml.parameters():
            weight.grad.mul_(1 / len(batch))
        self._optimiser.step()
        return len(batch)


def maml_step(data: Path) -> Contestant:
    """Train MAML on prepared meta-batches."""
    trainer = Trainer()
    batches = load_episodes(data, "train")
    coming = itertools.cycle(batches)
    return Contestant(
        lambda: trainer.step(next(coming)),
        lambda: [float(query_loss(trainer.maml, task)) for task in batches[0][:CHECKED_TASKS]],
    )


def maml_step_with_data(data: Path) -> Contestant:
    """Train MAML, data included."""
    trainer, tasks = Trainer(), _tasks(data)
    return Contestant(lambda: trainer.step([_split(*tasks.sample()) for _ in range(TASKS)]))


def maml_adaptation(data: Path) -> Contestant:
    """Adapt to prepared episodes and predict."""
    maml = l2l.algorithms.MAML(initial_classifier(), lr=INNER_RATE)
    batches = load_episodes(data, "test")
    coming = itertools.cycle(batches)

    def check() -> list[float]:
        scores = torch.stack([adapted_scores(maml, task) for task in batches[0][:CHECKED_TASKS]])
        return scores.softmax(dim=-1).flatten().tolist()

    return Contestant(lambda: len([adapted_scores(maml, task) for task in next(coming)]), check)


def episodes(data: Path) -> Contestant:
    """Load tasks."""
    tasks = _tasks(data)
    return Contestant(lambda: len([_split(*tasks.sample())]))


def _tasks(data: Path) -> l2l.data.Taskset:
    """Return learn2learn's training tasks of Omniglot.

    Each character is rotated by a random multiple of 90°.
    """
    # learn2learn always downloads, and torchvision then checks the MD5 of the zips, which differs for repacked copies
    # of the same PNG files. The files are unpacked here already, so skip the download.
    if all((png_folder(data) / part).is_dir() for part in PARTS):
        Omniglot._check_integrity = lambda self: True
    samples = SHOT + QUERIES
    tasksets = l2l.vision.benchmarks.get_tasksets(
        "omniglot",
        train_ways=WAY,
        train_samples=samples,
        test_ways=WAY,
        test_samples=samples,
        num_tasks=20000,  # as in the example
        root=str(data),
    )
    return tasksets.train


def _split(images: Tensor, labels: Tensor) -> Task:
    """Split each class into support and queries, as the example."""
    support = torch.zeros(len(images), dtype=torch.bool)
    for shot in range(SHOT):
        support[shot :: SHOT + QUERIES] = True
    return images[support], labels[support], images[~support], labels[~support]
