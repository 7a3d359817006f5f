"""Reptile (Nichol, Achiam & Schulman 2018, https://arxiv.org/abs/1803.02999)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from metabench.api import (
    Config,
    Episodes,
    Metrics,
    Setup,
    Support,
    Task,
    Weights,
    at_test,
    episode_generators,
    gradients,
    trained_weights,
)
from metabench.specs import Float, Integer, SearchRange
from metabench_plugins.algorithms.foreach import foreach
from metabench_plugins.algorithms.linear_head import LinearHead


class ReptileConfig(Config):
    """Parameters of `Reptile`, by default those of 5-way Omniglot (table 6).

    Attributes:
        inner_lr: learning rate of the inner Adam, whose β1 is 0.
        inner_steps: inner-loop steps in a training episode.
        inner_batch: images per inner-loop step in training.
        test_inner_steps: inner-loop steps in a test episode.
        test_inner_batch: images per inner-loop step at test.
        outer_step: initial outer step size ε, which falls linearly to 0 at the end of the training.
        transductive: whether to classify all queries in one batch; else each query alone with the support set. The two
            differ if batch norm takes its statistics from the batch (section 6.1).
    """

    # Around the paper's values.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        "inner_lr": Float(1e-4, 1e-2, log=True),
        "inner_steps": Integer(1, 20),
        "test_inner_steps": Integer(1, 50),
        "outer_step": Float(0.1, 1),
    }

    inner_lr: PositiveFloat = 1e-3
    inner_steps: PositiveInt = 5
    inner_batch: PositiveInt = 10
    test_inner_steps: int = at_test(50, ge=0)
    test_inner_batch: int = at_test(5, ge=1)
    outer_step: float = Field(default=1.0, ge=0)
    transductive: bool = at_test(False)


@dataclass
class InnerAdam:
    """Adam with β1 = 0: gradients divided by the root of their running mean square.

    Attributes:
        lr: learning rate.
        squares: running means of the squared gradients, one tensor per weight.
        steps: number of steps made, for the bias correction.
    """

    lr: float
    squares: list[Tensor]
    steps: int

    _DECAY = 0.999
    _EPSILON = 1e-8

    def step(self, weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """Return the weights after one step."""
        self.steps += 1
        correction = 1 - self._DECAY**self.steps
        decayed = foreach("mul", self.squares, self._DECAY)
        self.squares = foreach("addcmul", decayed, gradients, gradients, value=1 - self._DECAY)
        roots = foreach("add", foreach("sqrt", foreach("div", self.squares, correction)), self._EPSILON)
        return foreach("addcdiv", weights, gradients, roots, value=-self.lr)


class Reptile(LinearHead):
    """Train on an episode, then move the initial weights towards the result (algorithm 2).

    A training episode trains on all its images, support and query. As in the authors' code, the inner Adam carries its
    mean squares from episode to episode; here all episodes of a meta-batch start from the same mean squares, and the
    results are averaged like the weights, so that the order of episodes does not matter.
    """

    Config = ReptileConfig
    tasks = ("classification", "regression")
    functional = True
    inner_loop = True

    def __init__(self, config: ReptileConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self._train_steps = setup.train_steps
        self._outer_steps = 0
        # Adaptation at test starts from the inner Adam's steps and mean squares: they are part of the weights.
        self.register_buffer("inner_steps", torch.zeros((), dtype=torch.int64))
        for i, weight in enumerate(trained_weights(self).values()):
            self.register_buffer(f"square_{i}", torch.zeros_like(weight))

    def train_step(self, episodes: Episodes) -> Metrics:
        """Set θ ← θ + ε · mean(φ - θ) over the episodes of the meta-batch."""
        self.train()
        x = torch.cat([episodes.support_x, episodes.query_x], dim=1)
        y = torch.cat([episodes.support_y, episodes.query_y], dim=1)
        shape = y.shape[1], self.config.inner_batch, self.config.inner_steps
        batches = torch.stack([minibatches(*shape, generator) for generator in episode_generators(len(episodes))])

        def train(learner: Reptile, *episode: Tensor) -> tuple[Tensor, ...]:
            adapted, squares, loss = learner._trained(episodes.task, *episode)
            return (*adapted.values(), *squares, loss)

        *adapted_and_squares, losses = self.training_batching.map(train, self, x, y, batches.to(y.device))
        count = len(adapted_and_squares) // 2
        self._outer_update(adapted_and_squares[:count])
        for i, squares in enumerate(adapted_and_squares[count:]):
            self.get_buffer(f"square_{i}").copy_(squares.mean(dim=0))
        self.get_buffer("inner_steps").add_(self.config.inner_steps)
        return {"loss": losses.mean()}

    def adapt(self, support: Support) -> tuple[Weights, Tensor]:
        """Return the weights after training on the support set, and its images."""
        # The same minibatches for every episode: its result must not depend on its number.
        shape = len(support.y), self.config.test_inner_batch, self.config.test_inner_steps
        batches = minibatches(*shape, torch.Generator().manual_seed(0)).to(support.y.device)
        weights, _, _ = self._trained(support.task, support.x, support.y, batches)
        return weights, support.x

    def answer(self, state: tuple[Weights, Tensor], query: Tensor) -> Tensor:
        """Return the [M, N] query scores of the adapted weights; the [M, outputs] answers of a regression."""
        weights, support_x = state
        if self.config.transductive or self.backbone.needs_support:
            return self.under(weights, query, support_x)
        with_support = [torch.cat([support_x, image.unsqueeze(0)]) for image in query]
        return torch.stack([self.under(weights, batch)[-1] for batch in with_support])

    def training_state(self) -> dict[str, Any]:
        """Return the number of outer steps, which determines ε."""
        return {"outer_steps": self._outer_steps}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `training_state`."""
        self._outer_steps = int(state["outer_steps"])

    def _inner_adam(self) -> InnerAdam:
        squares = [self.get_buffer(f"square_{i}") for i, _ in enumerate(trained_weights(self).values())]
        return InnerAdam(self.config.inner_lr, squares, int(self.get_buffer("inner_steps")))

    def _trained(self, task: Task, x: Tensor, y: Tensor, batches: Tensor) -> tuple[Weights, list[Tensor], Tensor]:
        """Make one inner-loop step per minibatch.

        Args:
            task: the task of the episode.
            x: [n, C, H, W] images of the episode; [n, D] vectors.
            y: [n] labels of the images; [n, outputs] numbers of a regression.
            batches: [steps, size] indices of the images of each minibatch.

        Returns:
            The weights φ, Adam's mean squares, and the last loss.
        """
        adam = self._inner_adam()
        weights: Weights = trained_weights(self)
        loss = torch.zeros(())
        for batch in batches:
            slopes, loss = gradients(partial(self._loss, task, x[batch], y[batch]), weights)
            with torch.no_grad():
                moved = adam.step(list(weights.values()), list(slopes.values()))
            weights = dict(zip(weights, moved, strict=True))
        return weights, adam.squares, loss

    def _loss(self, task: Task, x: Tensor, y: Tensor, weights: Weights) -> Tensor:
        return task.loss(self.under(weights, x), y)

    @torch.no_grad()
    def _outer_update(self, adapted: list[Tensor]) -> None:
        epsilon = self.config.outer_step * (1 - self._outer_steps / self._train_steps)
        for weight, adapted_weight in zip(trained_weights(self).values(), adapted, strict=True):
            weight.add_(epsilon * (adapted_weight.mean(dim=0) - weight))
        self._outer_steps += 1


def minibatches(images: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Return the indices of random minibatches, reshuffled when all images are used.

    Args:
        images: number of images.
        size: number of images per minibatch, at most `images`.
        count: number of minibatches.
        generator: source of the randomness.

    Returns:
        [count, min(size, images)] indices.
    """
    size = min(size, images)
    order = torch.randperm(images, generator=generator)
    batches = []
    for _ in range(count):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(images, generator=generator)])
        batch, order = order[:size], order[size:]
        batches.append(batch)
    return torch.stack(batches) if batches else order.new_empty(0, size)
