"""The classifier of the algorithms that adapt weights: a backbone and a linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metabench.api import Algorithm, Setup, Weights, embed_queries


class LinearHead(Algorithm):
    """An algorithm whose `forward` is a classifier of the classes of one episode.

    Raises:
        ValueError: training episodes have another way than test episodes.
    """

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        if setup.train_way != setup.way:
            raise ValueError(
                f"train.way ({setup.train_way}) must be the tested way ({setup.way}): there is one output a class"
            )
        self.head = nn.Linear(setup.backbone.features, setup.way)

    def forward(self, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        """Return the [n, N] scores of [n, C, H, W] images, queries if their support set comes along."""
        features = self.backbone(x) if support_x is None else embed_queries(self.backbone, support_x, x)
        scores: Tensor = self.head(features)
        return scores

    def under(self, weights: Weights, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        """Return the scores of `forward` with these weights in place of the module's own."""
        scores: Tensor = torch.func.functional_call(self, dict(weights), (x, support_x))
        return scores
