"""The nearest class mean (Mensink, Verbeek, Perronnin & Csurka 2013, https://doi.org/10.1109/TPAMI.2013.83)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from metabench.api import Support, at_test
from metabench.specs import OneOf, SearchRange
from metabench_plugins.algorithms.protonet import class_means, squared_distances
from metabench_plugins.heads.cosines import Cosines
from metabench_plugins.heads.head import Head, HeadConfig


class NearestMeanConfig(HeadConfig):
    """Parameters of `NearestMean`.

    Attributes:
        distance: squared Euclidean distance, or cosine.
        scale: factor of the cosine, as in Meta-Baseline's first stage (Chen et al. 2021); no label depends on it.
    """

    # The scale moves no label.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **HeadConfig.search_space,
        "distance": OneOf(["euclidean", "cosine"]),
    }

    distance: Literal["euclidean", "cosine"] = at_test("euclidean")
    scale: float = at_test(10.0, gt=0)


class NearestMean(Head):
    """Assigns a query to the class with the nearest mean."""

    Config = NearestMeanConfig

    def adapt(self, support: Support) -> Tensor:
        """Return the [N, D] class means."""
        return class_means(self.transformed(support.x), support.y, support.way)

    def answer(self, means: Tensor, query: Tensor) -> Tensor:
        """Return [M, N] negative squared distances, or scaled cosines."""
        query = self.transformed(query)
        if self.config.distance == "cosine":
            return Cosines(query, self.config.scale).scores(means).T
        return -squared_distances(query, means)
