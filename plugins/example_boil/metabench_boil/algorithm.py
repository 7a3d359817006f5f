"""BOIL, body only update in inner loop (Oh et al. 2021, https://arxiv.org/abs/2008.08882)."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from metabench.api import (
    Algorithm,
    AlgorithmConfig,
    Setup,
    Support,
    Unfit,
    Weights,
    embed_queries,
    gradients,
    trained_weights,
)


class BOILConfig(AlgorithmConfig):
    """Parameters of `BOIL`.

    Attributes:
        inner_lr: learning rate of the inner loop, for the mean cross-entropy.
        inner_steps: inner-loop steps, in training and at test.
        first_order: whether to leave out the second derivatives.
    """

    inner_lr: PositiveFloat = 0.5
    inner_steps: PositiveInt = 1
    first_order: bool = False


class BOIL(Algorithm):
    """MAML whose inner loop moves the network below a fixed linear layer, so that features change with the episode.

    The outer loop trains both.
    """

    Config = BOILConfig
    functional = True
    inner_loop = True

    def __init__(self, config: BOILConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        if setup.backbone.frozen:
            raise Unfit("BOIL adapts the backbone, which is frozen")
        if setup.train_way != setup.way:
            raise Unfit(f"train.way ({setup.train_way}) must be the tested way ({setup.way})")
        self.head = nn.Linear(setup.backbone.features, setup.way)

    def forward(self, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        """Return the [n, N] scores of images; of queries, if support images are given."""
        features = self.backbone(x) if support_x is None else embed_queries(self.backbone, support_x, x)
        scores: Tensor = self.head(features)
        return scores

    def adapt(self, support: Support) -> tuple[Weights, Tensor]:
        """Return the adapted weights of the backbone, and the support images."""
        body = {name: weight for name, weight in trained_weights(self).items() if name.startswith("backbone.")}
        second_order = self.training and not self.config.first_order

        def loss(weights: Weights) -> Tensor:
            return F.cross_entropy(functional_call(self, dict(weights), (support.x,)), support.y)

        for _ in range(self.config.inner_steps):
            slopes, _ = gradients(loss, body, differentiable=second_order)
            body = {name: weight - self.config.inner_lr * slopes[name] for name, weight in body.items()}
        return body, support.x

    def answer(self, state: tuple[Weights, Tensor], query: Tensor) -> Tensor:
        """Return the [M, N] query scores of the adapted backbone and the layer."""
        body, support_x = state
        scores: Tensor = functional_call(self, dict(body), (query, support_x))
        return scores
