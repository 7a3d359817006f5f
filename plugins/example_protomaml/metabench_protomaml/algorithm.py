"""ProtoMAML (Triantafillou et al. 2020, https://arxiv.org/abs/1903.03096, section 3)."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from metabench.api import Algorithm, AlgorithmConfig, Support, trained_weights

#: Weights of the backbone, weights of the head, and the support images.
Adapted = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]


class ProtoMAMLConfig(AlgorithmConfig):
    """Parameters of `ProtoMAML`.

    Attributes:
        inner_lr: learning rate of the inner loop, for the mean cross-entropy.
        inner_steps: inner-loop steps in training.
        test_inner_steps: inner-loop steps at test.
        first_order: whether to leave out the second derivatives.
    """

    inner_lr: PositiveFloat = 0.01
    inner_steps: PositiveInt = 1
    test_inner_steps: PositiveInt = 3
    first_order: bool = False


class ProtoMAML(Algorithm):
    """MAML with a linear layer initialised from class prototypes.

    The negative squared Euclidean distance to a prototype c is, up to a constant, a linear layer with weights 2c and
    bias -|c|². The layer is computed from the episode's prototypes, so any way works, and the outer gradient passes
    through the prototypes.
    """

    Config = ProtoMAMLConfig

    def adapt(self, support: Support) -> Adapted:
        """Return the adapted weights of backbone and head, and the support images."""
        weights = trained_weights(self.backbone)
        second_order = self.training and not self.config.first_order
        steps = self.config.inner_steps if self.training else self.config.test_inner_steps
        with torch.enable_grad():
            embedded = self._embed(weights, support.x)
            prototypes = torch.stack([embedded[support.y == label].mean(dim=0) for label in range(support.way)])
            head = {"weight": 2 * prototypes, "bias": -prototypes.square().sum(dim=1)}
            for _ in range(steps):
                scores = F.linear(self._embed(weights, support.x), head["weight"], head["bias"])
                loss, values = F.cross_entropy(scores, support.y), [*weights.values(), *head.values()]
                # In training, retain the graph: the outer gradient passes through the prototypes, first order or not.
                gradients = torch.autograd.grad(loss, values, create_graph=second_order, retain_graph=self.training)
                adapted = [value - self.config.inner_lr * g for value, g in zip(values, gradients, strict=True)]
                if not self.training:  # keep no graph between steps
                    adapted = [value.detach().requires_grad_() for value in adapted]
                weights = dict(zip(weights, adapted, strict=False))
                head = dict(zip(head, adapted[len(weights) :], strict=True))
        return weights, head, support.x

    def answer(self, state: Adapted, query: Tensor) -> Tensor:
        """Return the [M, N] query scores of the adapted weights."""
        weights, head, support_x = state
        return F.linear(self._embed_queries(weights, support_x, query), head["weight"], head["bias"])

    def _embed(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        features: Tensor = functional_call(self.backbone, weights, (x,))
        return features

    def _embed_queries(self, weights: dict[str, Tensor], support_x: Tensor, query_x: Tensor) -> Tensor:
        """Embed the queries, with support if the backbone needs it."""
        if not self.backbone.needs_support:
            return self._embed(weights, query_x)
        together = torch.cat([support_x, query_x])
        features: Tensor = functional_call(self.backbone, weights, (together,), {"support": len(support_x)})
        return features[len(support_x) :]
