"""Almost no inner loop (Raghu, Raghu, Bengio & Vinyals 2020, https://arxiv.org/abs/1909.09157)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from metabench.api import Support, Weights, trained_weights
from metabench_plugins.algorithms.descent import descended
from metabench_plugins.algorithms.linear_head import LinearHead
from metabench_plugins.algorithms.maml import MAMLConfig


class ANIL(LinearHead):
    """MAML whose inner loop moves the linear head only, in training and at test.

    Features are computed once an episode, those of support and queries in one pass: a step of the inner loop costs a
    matrix product. The outer loop trains the network and the initial head. Parameters are those of `MAML`.
    """

    Config = MAMLConfig
    reads = "features"
    tasks = ("classification", "regression")
    functional = True
    inner_loop = True

    def adapt(self, support: Support) -> Weights:
        """Return the head after gradient steps on [S, D] features."""
        steps = self.config.inner_steps if self.training else self.config.test_inner_steps
        second_order = self.training and not self.config.first_order

        def loss(head: Weights) -> Tensor:
            return support.task.loss(scores(head, support.x), support.y)

        return descended(loss, trained_weights(self.head), steps, self.config.inner_lr, second_order)

    def answer(self, head: Weights, query: Tensor) -> Tensor:
        """Return the [M, N] scores of [M, D] features; the [M, outputs] answers of a regression."""
        return scores(head, query)


def scores(head: Weights, features: Tensor) -> Tensor:
    """Return [n, N] outputs of a linear head for [n, D] features."""
    return F.linear(features, head["weight"], head["bias"])
