"""Model-agnostic meta-learning (Finn, Abbeel & Levine 2017, https://arxiv.org/abs/1703.03400)."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from metabench.api import AlgorithmConfig, OptimisedAlgorithm, Weights, gradients
from metabench_plugins.algorithms.foreach import foreach
from metabench_plugins.algorithms.linear_head import LinearHead


class MAMLConfig(AlgorithmConfig):
    """Parameters of `MAML`, by default those of 5-way Omniglot (appendix A.1).

    Attributes:
        inner_lr: step size α of the inner loop, for the *mean* cross-entropy. The authors' code divides the sum over
            the N·K support images by K, which makes its gradient N times larger: their 0.4 is 2.0 here (and their 0.01
            on miniImageNet is 0.05).
        inner_steps: inner-loop steps in training.
        test_inner_steps: inner-loop steps at test.
        first_order: whether to drop the second derivatives (section 5.2).
    """

    inner_lr: PositiveFloat = 2.0
    inner_steps: PositiveInt = 1
    test_inner_steps: PositiveInt = 3
    first_order: bool = False


class MAML(LinearHead, OptimisedAlgorithm):
    """Learn initial weights from which a few gradient steps on the support set solve an episode (algorithm 2)."""

    Config = MAMLConfig
    functional = True
    inner_loop = True

    def episode_loss(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, way: int) -> Tensor:
        """Return the query loss of the adapted weights, differentiable through the adaptation."""
        adapted = self._adapt(support_x, support_y, self.config.inner_steps, not self.config.first_order)
        return F.cross_entropy(self.under(adapted, query_x, support_x), query_y)

    def episode_scores(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """Return the [M, N] query scores of the weights adapted to the support set."""
        adapted = self._adapt(support_x, support_y, self.config.test_inner_steps, second_order=False)
        return self.under(adapted, query_x, support_x)

    @torch.no_grad()
    def predict_alone(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """See `metabench.api.Algorithm.predict_alone`."""
        self.eval()

        def scores(learner: MAML, x: Tensor, y: Tensor, queries: Tensor) -> tuple[Tensor]:
            adapted = learner._adapt(x, y, learner.config.test_inner_steps, second_order=False)
            return (torch.cat([learner.under(adapted, query, x) for query in torch.split(queries, 1)]),)

        return self.batching.map(scores, self, support_x, support_y, query_x)[0]

    def _adapt(self, x: Tensor, y: Tensor, steps: int, second_order: bool) -> Weights:
        """Return the weights after `steps` gradient steps on the support set (equation 1)."""
        weights: Weights = dict(self.named_parameters())

        def loss(weights: Weights) -> Tensor:
            return F.cross_entropy(self.under(weights, x), y)

        for _ in range(steps):
            slopes, _ = gradients(loss, weights, differentiable=second_order)
            # With first-order gradients ∇ is a constant, and θ′ = θ - α∇ passes the gradient of L(θ′) on to θ.
            moved = foreach("add", list(weights.values()), list(slopes.values()), alpha=-self.config.inner_lr)
            weights = dict(zip(weights, moved, strict=True))
        return weights
