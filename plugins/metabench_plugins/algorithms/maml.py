"""Model-agnostic meta-learning (Finn, Abbeel & Levine 2017, https://arxiv.org/abs/1703.03400)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from metabench.api import AlgorithmConfig, OptimisedAlgorithm, Setup, embed_queries

Weights = Mapping[str, Tensor]


class MAMLConfig(AlgorithmConfig):
    """Parameters of `MAML`; the defaults are those of 5-way Omniglot (appendix A.1).

    Attributes:
        inner_lr: α, for the *mean* cross-entropy. The authors' code divides the sum over the N·K support
            examples by K, so its gradient is N times ours: their 0.4 is 2.0 here (and 0.01 is 0.05 on miniImageNet).
        inner_steps: gradient steps in training.
        test_inner_steps: gradient steps at test.
        first_order: leave out the second derivatives (section 5.2).
    """

    inner_lr: PositiveFloat = 2.0
    inner_steps: PositiveInt = 1
    test_inner_steps: PositiveInt = 3
    first_order: bool = False


class MAML(OptimisedAlgorithm):
    """Learns weights from which a few gradient steps on the support set solve the episode (algorithm 2)."""

    Config = MAMLConfig

    def __init__(self, config: MAMLConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        if setup.train_way != setup.way:
            raise ValueError(
                f"maml has one output a class: train.way ({setup.train_way}) must be the tested way ({setup.way})"
            )
        self.head = nn.Linear(setup.backbone.features, setup.way)

    def forward(self, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        """Return the [n, N] scores of [n, C, H, W] images, queries if their support set comes along."""
        features = self.backbone(x) if support_x is None else embed_queries(self.backbone, support_x, x)
        scores: Tensor = self.head(features)
        return scores

    def episode_loss(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, way: int) -> Tensor:
        """Return the query loss of the adapted weights; its gradient goes through the adaptation."""
        weights = dict(self.named_parameters())
        adapted = self._adapt(weights, support_x, support_y, self.config.inner_steps, training=True)
        return F.cross_entropy(self._query_scores(adapted, support_x, query_x), query_y)

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """See `metabench.api.Algorithm.predict`."""
        self.eval()
        weights = {name: value.detach() for name, value in self.named_parameters()}
        scores = []
        for x, y, queries in zip(support_x, support_y, query_x, strict=True):
            adapted = self._adapt(weights, x, y, self.config.test_inner_steps, training=False)
            with torch.no_grad():
                scores.append(self._query_scores(adapted, x, queries))
        return torch.stack(scores)

    def _adapt(self, weights: Weights, x: Tensor, y: Tensor, steps: int, training: bool) -> Weights:
        """Return the weights after `steps` of gradient descent on the support set (equation 1)."""
        second_order = training and not self.config.first_order
        for _ in range(steps):
            if not training:
                weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
            with torch.enable_grad():
                loss = F.cross_entropy(functional_call(self, dict(weights), (x,)), y)
                gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=second_order)
            # Without create_graph the gradients are constants, and θ′ = θ - α∇ still passes ∇L(θ′) on to θ.
            weights = {
                name: value - self.config.inner_lr * gradient
                for (name, value), gradient in zip(weights.items(), gradients, strict=True)
            }
        return weights

    def _query_scores(self, weights: Weights, support_x: Tensor, query_x: Tensor) -> Tensor:
        """Return the [M, N] scores of the queries under these weights."""
        scores: Tensor = functional_call(self, dict(weights), (query_x, support_x))
        return scores
