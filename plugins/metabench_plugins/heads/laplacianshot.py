"""LaplacianShot (Ziko, Dolz, Granger & Ben Ayed 2020, https://arxiv.org/abs/2006.15486)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from metabench.api import Support, at_test
from metabench.specs import Float, Integer, SearchRange
from metabench_plugins.algorithms.protonet import squared_distances
from metabench_plugins.algorithms.transformed import Transform
from metabench_plugins.heads.bd_cspn import rectified_means
from metabench_plugins.heads.head import Head, HeadConfig


class LaplacianShotConfig(HeadConfig):
    """Parameters of `LaplacianShot`; the transform is the paper's, the others are easyfsl's.

    Attributes:
        neighbours: the number of queries nearest to a query that are its neighbours, the query itself counted.
        weight: λ, the weight of the neighbours' labels. The authors choose it on validation classes.
        steps: updates of the labels. Authors and easyfsl stop before, where the objective moves by less than 1e-6.
    """

    # The authors choose λ on validation classes.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **HeadConfig.search_space,
        "neighbours": Integer(1, 10),
        "weight": Float(0.1, 1.5),
    }

    transform: Transform = at_test("CL2N")
    neighbours: int = at_test(3, ge=1)
    weight: float = at_test(0.7, ge=0)
    steps: int = at_test(20, ge=0)


class LaplacianShot(Head):
    """Assigns queries to the nearest of BD-CSPN's means, and neighbours among them to the same class. Transductive."""

    Config = LaplacianShotConfig

    def adapt(self, support: Support) -> Support:
        """Return the support set of transformed features."""
        return replace(support, x=self.transformed(support.x))

    def answer(self, support: Support, query: Tensor) -> Tensor:
        """Return the [M, N] log-probabilities after the bound updates (algorithm 1)."""
        query = self.transformed(query)
        nearness = -squared_distances(rectified_means(support, query), query)  # [N, M]: see `Cosines`
        pulls = [nearest.expand_as(nearness) for nearest in neighbours_of(query, self.config.neighbours - 1)]
        scores = nearness
        for _ in range(self.config.steps):
            labels = scores.softmax(dim=0)
            # Equation 12. To gather labels takes a fifth of the time of a product with an [M, M] matrix.
            pull = sum(labels.gather(1, nearest) for nearest in pulls)
            scores = nearness.add(pull, alpha=self.config.weight)
        return scores.log_softmax(dim=0).T


def neighbours_of(query: Tensor, count: int) -> list[Tensor]:
    """Return the [1, M] numbers of the nearest query to each, of the second nearest, …

    Args:
        query: [M, D] features.
        count: the number of nearest queries; fewer if there are fewer.
    """
    alone = torch.eye(len(query), dtype=torch.bool, device=query.device)
    distances = torch.where(alone, torch.inf, squared_distances(query, query))
    nearest = []
    for _ in range(min(count, len(query) - 1)):  # a third of the time of `topk`
        nearest.append(distances.min(dim=0, keepdim=True).indices)
        distances = distances.scatter(0, nearest[-1], torch.inf)
    return nearest
