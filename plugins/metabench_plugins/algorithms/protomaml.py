"""Proto-MAML (Triantafillou et al. 2020, "Meta-Dataset", section 3, https://arxiv.org/abs/1903.03096)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Algorithm, AlgorithmConfig, Support, Weights, at_test, embed_queries, trained_weights
from metabench.specs import Float, Integer, SearchRange
from metabench_plugins.algorithms.descent import descended
from metabench_plugins.algorithms.protonet import class_means

_WEIGHT, _BIAS = "head.weight", "head.bias"


class ProtoMAMLConfig(AlgorithmConfig):
    """Parameters of `ProtoMAML`, by default those of the authors' code (maml_init_with_proto_config.gin).

    Attributes:
        inner_lr: step size α of the inner loop, for the mean cross-entropy of the support set.
        inner_steps: inner-loop steps in training.
        test_inner_steps: inner-loop steps at test; 0 is a prototypical network.
        first_order: whether to drop the second derivatives.
        weight_decay: L2 penalty of the outer optimiser.
    """

    # Around the authors' values.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **AlgorithmConfig.search_space,
        "inner_lr": Float(1e-3, 1, log=True),
        "inner_steps": Integer(1, 10),
        "test_inner_steps": Integer(1, 20),
        "weight_decay": Float(1e-6, 1e-3, log=True),
    }

    inner_lr: PositiveFloat = 0.01
    inner_steps: PositiveInt = 5
    test_inner_steps: int = at_test(5, ge=0)
    first_order: bool = True
    weight_decay: NonNegativeFloat = 1e-4


class ProtoMAML(Algorithm):
    """MAML whose linear layer begins as the prototypes of the episode.

    The negative squared distance to a prototype c is, up to a constant, a linear layer with weights 2c and bias -|c|².
    The outer gradient flows through this initial layer to the network; the inner loop takes it as given. The authors'
    inner loop leaves scales and shifts of batch norm as they are; here it moves them, as MAML's.
    """

    Config = ProtoMAMLConfig
    functional = True
    inner_loop = True
    any_way = True
    draws = False

    def forward(self, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        """Return [n, D] features of images; of queries, if support images are given."""
        return self.backbone(x) if support_x is None else embed_queries(self.backbone, support_x, x)

    def adapt(self, support: Support) -> tuple[Weights, Tensor]:
        """Return the weights of network and layer after gradient steps, and the support images."""
        prototypes = class_means(self(support.x), support.y, support.way)
        head = {_WEIGHT: 2 * prototypes, _BIAS: -prototypes.square().sum(dim=1)}
        # The prototypes are functions of the weights, not of these copies: no inner gradient flows through them.
        network = {name: weight.clone() for name, weight in trained_weights(self).items()}

        def loss(weights: Weights) -> Tensor:
            return F.cross_entropy(self._scores(weights, support.x), support.y)

        steps = self.config.inner_steps if self.training else self.config.test_inner_steps
        second_order = self.training and not self.config.first_order
        return descended(loss, {**network, **head}, steps, self.config.inner_lr, second_order), support.x

    def answer(self, state: tuple[Weights, Tensor], query: Tensor) -> Tensor:
        """Return the [M, N] query scores of the adapted weights."""
        weights, support_x = state
        return self._scores(weights, query, support_x)

    def _scores(self, weights: Weights, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        network = {name: weight for name, weight in weights.items() if name not in (_WEIGHT, _BIAS)}
        features = torch.func.functional_call(self, network, (x, support_x))
        return F.linear(features, weights[_WEIGHT], weights[_BIAS])
