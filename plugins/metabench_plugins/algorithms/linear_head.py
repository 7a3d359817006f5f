"""Backbone and linear layer, the network of algorithms that adapt weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metabench.api import Algorithm, Setup, Support, Unfit, Weights, embed_queries


class LinearHead(Algorithm):
    """An algorithm whose `forward` scores the N classes of an episode, or tells the numbers of a regression.

    Raises:
        Unfit: the ways of training and test episodes differ.
    """

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        if setup.regression is None and setup.train_way not in (None, setup.way):
            raise Unfit(
                f"train.way ({setup.train_way}) must be the tested way ({setup.way}): there is one output per class"
            )
        self.head = nn.Linear(setup.backbone.features, setup.outputs)

    def forward(self, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        """Return the [n, N] scores of images; [n, outputs] of a regression.

        Args:
            x: [n, C, H, W] images; [n, D] vectors.
            support_x: the support images, if `x` are queries: some backbones normalise queries by them.
        """
        features = self.backbone(x) if support_x is None else embed_queries(self.backbone, support_x, x)
        scores: Tensor = self.head(features)
        return scores

    def under(self, weights: Weights, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        """Return the scores of `forward` with other weights than the module's."""
        scores: Tensor = torch.func.functional_call(self, dict(weights), (x, support_x))
        return scores

    def loss_on(self, support: Support, weights: Weights) -> Tensor:
        """Return the task's loss of a support set of images with other weights than the module's."""
        return support.task.loss(self.under(weights, support.x), support.y)
