"""Floors: nearest class means without any training."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from metabench.api import Algorithm, Setup, Support, Unfit
from metabench_plugins.algorithms.protonet import class_means, squared_distances


class NearestPixel(Algorithm):
    """Assigns a query to the class with the nearest mean image; the backbone is unused."""

    trains_on = "nothing"
    functional = True
    any_way = True
    draws = False

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        self.backbone.requires_grad_(False)

    def adapt(self, support: Support) -> Tensor:
        """Return [N, P] mean images of the classes, of P numbers."""
        return class_means(support.x.flatten(1), support.y, support.way)

    def answer(self, means: Tensor, query: Tensor) -> Tensor:
        """Return [M, N] negative squared distances to the mean images."""
        return -squared_distances(query.flatten(1), means)


class Untrained(Algorithm):
    """Assigns a query to the class with the nearest mean feature of a network as it was drawn.

    Raises:
        Unfit: the weights of the backbone are not drawn.
    """

    trains_on = "nothing"
    reads = "features"
    functional = True
    any_way = True
    draws = False

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        if not self.backbone.draws:
            raise Unfit("the weights of the backbone are not drawn at random, so that it is no untrained network")

    def adapt(self, support: Support) -> Tensor:
        """Return [N, D] mean features of the classes."""
        return class_means(support.x, support.y, support.way)

    def answer(self, means: Tensor, query: Tensor) -> Tensor:
        """Return [M, N] negative squared distances to the mean features."""
        return -squared_distances(query, means)
