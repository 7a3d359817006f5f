"""BD-CSPN (Liu, Song & Qin 2020, "Prototype rectification for few-shot learning", https://arxiv.org/abs/1911.10713)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from metabench.api import Support, at_test
from metabench_plugins.algorithms.protonet import class_means
from metabench_plugins.heads.cosines import Cosines
from metabench_plugins.heads.head import Head, HeadConfig


class BDCSPNConfig(HeadConfig):
    """Parameters of `BDCSPN`.

    Attributes:
        scale: factor of the cosine of the answers; no label depends on it.
    """

    scale: float = at_test(10.0, gt=0)


class BDCSPN(Head):
    """Moves queries to the support set, and class means towards queries; answers by the cosine to the new means.

    Transductive. As in easyfsl, all queries have a pseudo-label, weighted by the exponential of its cosine, and
    answers are of queries where they are, before they are moved.
    """

    Config = BDCSPNConfig

    def adapt(self, support: Support) -> Support:
        """Return the support set of transformed features."""
        return replace(support, x=self.transformed(support.x))

    def answer(self, support: Support, query: Tensor) -> Tensor:
        """Return the [M, N] scaled cosines to the rectified means."""
        query = self.transformed(query)
        return Cosines(query, self.config.scale).scores(rectified_means(support, query)).T


def rectified_means(support: Support, query: Tensor) -> Tensor:
    """Return [N, D] class means of support images and queries, weighted by their similarity to the support's means.

    Args:
        support: [S, D] features of the support set.
        query: [M, D] features of the queries.
    """
    means = class_means(support.x, support.y, support.way)
    shifted = query + (support.x.mean(dim=0) - query.mean(dim=0))
    on_support, on_query = (Cosines(x, 1.0).scores(means) for x in (support.x, shifted))
    of_support = F.one_hot(support.y, support.way).T * on_support.exp()
    of_query = (on_query == on_query.amax(dim=0)) * on_query.exp()
    return (of_support @ support.x + of_query @ shifted) / (of_support.sum(dim=1) + of_query.sum(dim=1)).unsqueeze(1)
