"""Matching networks (Vinyals et al. 2016, https://arxiv.org/abs/1606.04080)."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import AlgorithmConfig, EmbeddingAlgorithm, Setup
from metabench_plugins.algorithms.per_class import log_sum_per_class


class MatchingNetConfig(AlgorithmConfig):
    """Parameters of `MatchingNet`.

    Attributes:
        scale: of the cosine before the softmax. 1 is the paper's; the confidence of a 5-way 1-shot prediction
            is then at most e²/(e² + 4) = 0.65, so a larger one learns and predicts better.
        fce: full context embeddings (section 2.1.2): support and query embeddings depend on the support set.
        fce_steps: processing steps of the query's attention LSTM.
    """

    scale: PositiveFloat = 1.0
    fce: bool = False
    fce_steps: PositiveInt = 5


class MatchingNet(EmbeddingAlgorithm):
    """A query's class probabilities are the support labels, weighted by cosine attention (equation 1)."""

    Config = MatchingNetConfig

    def __init__(self, config: MatchingNetConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.functional = not config.fce  # an LSTM cannot be vectorised
        self.context = FullContext(setup.backbone.features, config.fce_steps) if config.fce else None

    def episode_loss(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, way: int) -> Tensor:
        """Return the negative log-likelihood of the queries (equation 6)."""
        return F.nll_loss(self.episode_scores(support_x, support_y, query_x, way), query_y)

    def feature_scores(self, support: Tensor, support_y: Tensor, query: Tensor, way: int) -> Tensor:
        """Return the [M, N] log-probabilities of the queries."""
        if self.context is not None:
            support, query = self.context(support, query)
        return attended_labels(query, support, support_y, way, self.config.scale)


def attended_labels(query: Tensor, support: Tensor, labels: Tensor, way: int, scale: float) -> Tensor:
    """Return the [M, N] log of Σ_k softmax(scale · cosine(query, support_k)) · onehot(label_k).

    Args:
        query: [M, D].
        support: [S, D].
        labels: [S].
        way: N.
        scale: of the cosine.
    """
    cosine = F.normalize(query, dim=-1) @ F.normalize(support, dim=-1).T
    log_attention = F.log_softmax(scale * cosine, dim=-1)
    return log_sum_per_class(log_attention, labels, way)


class FullContext(nn.Module):
    """Full context embeddings: g by a bidirectional LSTM over the support set, f by an attention LSTM.

    Both follow appendix A.1 and A.2. The order of the support set matters to g, as the paper says.

    Args:
        features: D, of both embeddings.
        steps: processing steps of f.
    """

    def __init__(self, features: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.support_lstm = nn.LSTM(features, features, bidirectional=True)
        self.query_lstm = nn.LSTMCell(2 * features, features)

    def forward(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return the [S, D] and [M, D] embeddings in the context of the support set."""
        forwards, backwards = self.support_lstm(support)[0].chunk(2, dim=-1)
        support = support + forwards + backwards
        hidden, cell = query, torch.zeros_like(query)
        for _ in range(self.steps):
            read = F.softmax(hidden @ support.T, dim=-1) @ support
            output, cell = self.query_lstm(torch.cat([query, read], dim=-1), (hidden, cell))
            hidden = output + query
        return support, hidden
