"""What the algorithms that adapt weights share: a backbone and a linear layer with one output a class."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

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

    def scores_under(self, weights: Weights, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        """Return what `forward` would with these weights in place of the learned ones."""
        scores: Tensor = functional_call(self, dict(weights), (x, support_x))
        return scores
