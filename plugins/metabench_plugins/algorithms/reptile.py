"""Reptile (Nichol, Achiam & Schulman 2018, https://arxiv.org/abs/1803.02999)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Config, Episodes, Metrics, Setup
from metabench_plugins.algorithms.linear_head import LinearHead, Weights


class ReptileConfig(Config):
    """Parameters of `Reptile`; the defaults are those of 5-way Omniglot (table 6).

    Attributes:
        inner_lr: of the inner Adam, whose β1 is 0.
        inner_steps: iterations on a training task.
        inner_batch: images of one iteration.
        test_inner_steps: iterations on a test task.
        test_inner_batch: images of one iteration at test.
        outer_step: ε at the start; it falls linearly to 0 at the end of the training.
        transductive: classify all queries in one batch; else each alone with the support set, which makes a
            difference where batch norm takes its statistics from the batch (section 6.1).
    """

    inner_lr: PositiveFloat = 1e-3
    inner_steps: PositiveInt = 5
    inner_batch: PositiveInt = 10
    test_inner_steps: PositiveInt = 50
    test_inner_batch: PositiveInt = 5
    outer_step: float = Field(default=1.0, ge=0)
    transductive: bool = False


@dataclass
class InnerAdam:
    """Adam with β1 = 0: gradients divided by the root of their running mean square.

    Attributes:
        lr: learning rate.
        squares: running mean of the squared gradients, one tensor a weight.
        steps: made so far, for the bias correction.
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
        self.squares = list(torch._foreach_mul(self.squares, self._DECAY))
        torch._foreach_addcmul_(self.squares, gradients, gradients, value=1 - self._DECAY)
        roots = torch._foreach_sqrt(torch._foreach_div(self.squares, correction))
        torch._foreach_add_(roots, self._EPSILON)
        return list(torch._foreach_addcdiv(weights, gradients, roots, value=-self.lr))


class Reptile(LinearHead):
    """Trains on a task, then moves the initialisation a little towards where that led (algorithm 2).

    All images of a training episode, support and query, are the task's training set. As in the authors' code
    the inner Adam carries its mean squares from task to task; here all tasks of a meta-batch start from the
    same ones, and their results are averaged as the weights are, so that the order of tasks is irrelevant.
    """

    Config = ReptileConfig

    def __init__(self, config: ReptileConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self._train_steps = setup.train_steps
        self._outer_steps = 0
        self._inner_steps = 0
        for i, weight in enumerate(self.parameters()):
            self.register_buffer(f"square_{i}", torch.zeros_like(weight))

    def meta_step(self, episodes: Episodes) -> Metrics:
        """θ ← θ + ε · mean(φ - θ) over the tasks of the meta-batch."""
        self.train()
        start = dict(self.named_parameters())
        results, losses = [], []
        for support_x, support_y, query_x, query_y in episodes:
            x, y = torch.cat([support_x, query_x]), torch.cat([support_y, query_y])
            batches = minibatches(len(y), self.config.inner_batch, self.config.inner_steps)
            adam = self._inner_adam()
            adapted, loss = self._adapt(start, x, y, batches, adam)
            results.append((adapted, adam.squares))
            losses.append(loss)
        self._outer_update([adapted for adapted, _ in results])
        for i, squares in enumerate(zip(*(squares for _, squares in results), strict=True)):
            self.get_buffer(f"square_{i}").copy_(torch.stack(squares).mean(dim=0))
        self._inner_steps += self.config.inner_steps
        return {"loss": torch.stack(losses).mean()}

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """See `metabench.api.Algorithm.predict`."""
        self.eval()
        start = dict(self.named_parameters())
        scores = []
        for x, y, queries in zip(support_x, support_y, query_x, strict=True):
            # A generator of its own: an episode's result does not depend on its place in the batch.
            batches = minibatches(
                len(y),
                self.config.test_inner_batch,
                self.config.test_inner_steps,
                torch.Generator().manual_seed(0),
            )
            adapted, _ = self._adapt(start, x, y, batches, self._inner_adam())
            with torch.no_grad():
                scores.append(self._query_scores(adapted, x, queries))
        return torch.stack(scores)

    def training_state(self) -> dict[str, Any]:
        """Return the position in the annealing."""
        return {"outer_steps": self._outer_steps}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `training_state` returned."""
        self._outer_steps = int(state["outer_steps"])

    def get_extra_state(self) -> dict[str, Any]:
        """Return the inner Adam's steps; they go with its mean squares, from which adaptation at test starts."""
        return {"inner_steps": self._inner_steps}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `get_extra_state` returned."""
        self._inner_steps = int(state["inner_steps"])

    def _inner_adam(self) -> InnerAdam:
        squares = [self.get_buffer(f"square_{i}") for i, _ in enumerate(self.parameters())]
        return InnerAdam(self.config.inner_lr, squares, self._inner_steps)

    def _adapt(
        self, start: Weights, x: Tensor, y: Tensor, batches: Iterator[Tensor], adam: InnerAdam
    ) -> tuple[Weights, Tensor]:
        """Return the weights φ after one inner step a minibatch, and the loss of the last."""
        names = list(start)
        weights = [value.detach() for value in start.values()]
        loss = torch.zeros(())
        for batch in batches:
            weights = [weight.requires_grad_() for weight in weights]
            with torch.enable_grad():
                scores = self.scores_under(dict(zip(names, weights, strict=True)), x[batch])
                loss = F.cross_entropy(scores, y[batch])
                gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                weights = adam.step(weights, list(gradients))
        return dict(zip(names, weights, strict=True)), loss.detach()

    @torch.no_grad()
    def _outer_update(self, results: list[Weights]) -> None:
        epsilon = self.config.outer_step * (1 - self._outer_steps / self._train_steps)
        for name, weight in self.named_parameters():
            mean = torch.stack([adapted[name] for adapted in results]).mean(dim=0)
            weight.add_(epsilon * (mean - weight))
        self._outer_steps += 1

    def _query_scores(self, weights: Weights, support_x: Tensor, query_x: Tensor) -> Tensor:
        """Return the [M, N] scores of the queries under the adapted weights."""
        if self.config.transductive or self.backbone.needs_support:
            return self.scores_under(weights, query_x, support_x)
        with_support = [torch.cat([support_x, query.unsqueeze(0)]) for query in query_x]
        return torch.stack([self.scores_under(weights, batch)[-1] for batch in with_support])


def minibatches(images: int, size: int, count: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Yield `count` index tensors of at most `size` images, reshuffled each time that all were used."""
    size = min(size, images)
    order = torch.randperm(images, generator=generator)
    for _ in range(count):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(images, generator=generator)])
        batch, order = order[:size], order[size:]
        yield batch
