"""Matching networks (Vinyals et al. 2016, https://arxiv.org/abs/1606.04080)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Algorithm, AlgorithmConfig, Episode, Setup, Support
from metabench.specs import Float, SearchRange
from metabench_plugins.algorithms.per_class import log_sum_per_class


class MatchingNetConfig(AlgorithmConfig):
    """Parameters of `MatchingNet`.

    Attributes:
        scale: factor of the cosine before the softmax. The paper uses 1, which limits the confidence of a 5-way 1-shot
            prediction to e²/(e² + 4) = 0.65; a larger scale learns and predicts better.
        fce: full context embeddings (section 2.1.2), which embed support and query depending on the support set.
        fce_steps: processing steps of the query's attention LSTM.
    """

    # The paper's scale is 1; that of cosine classifiers is 10 to 20.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **AlgorithmConfig.search_space,
        "scale": Float(1, 100, log=True),
    }

    scale: PositiveFloat = 1.0
    fce: bool = False
    fce_steps: PositiveInt = 5


class MatchingNet(Algorithm):
    """Averages the support labels by cosine attention (equation 1)."""

    Config = MatchingNetConfig
    reads = "features"
    any_way = True

    def __init__(self, config: MatchingNetConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.functional = not config.fce  # torch.vmap does not support LSTMs
        self.context = FullContext(setup.backbone.features, config.fce_steps) if config.fce else None

    def adapt(self, support: Support) -> Support:
        """Return the support set, with full context embeddings if configured."""
        return support if self.context is None else replace(support, x=self.context.support(support.x))

    def answer(self, support: Support, query: Tensor) -> Tensor:
        """Return the [M, N] log-probabilities of the queries."""
        if self.context is not None:
            query = self.context.query(query, support.x)
        return attended_labels(query, support.x, support.y, support.way, self.config.scale)

    def episode_loss(self, episode: Episode) -> Tensor:
        """Return the negative log-likelihood of the queries (equation 6)."""
        return F.nll_loss(self.answer(self.adapt(episode.support), episode.query_x), episode.query_y)


def attended_labels(query: Tensor, support: Tensor, labels: Tensor, way: int, scale: float) -> Tensor:
    """Return log Σ_k softmax(scale · cosine(query, support_k)) · onehot(label_k).

    Args:
        query: [M, D] query embeddings.
        support: [S, D] support embeddings.
        labels: [S] support labels 0 … N-1.
        way: number of classes N.
        scale: factor of the cosine.

    Returns:
        [M, N] log-probabilities.
    """
    cosine = F.normalize(query, dim=-1) @ F.normalize(support, dim=-1).T
    log_attention = F.log_softmax(scale * cosine, dim=-1)
    return log_sum_per_class(log_attention, labels, way)


class FullContext(nn.Module):
    """Full context embeddings g (support) and f (query).

    g is a bidirectional LSTM over the support set, f an attention LSTM (appendix A.1 and A.2). g depends on the order
    of the support set, as in the paper.

    Args:
        features: length D of both embeddings.
        steps: processing steps of f.
    """

    def __init__(self, features: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.support_lstm = nn.LSTM(features, features, bidirectional=True)
        self.query_lstm = nn.LSTMCell(2 * features, features)

    def forward(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Embed [S, D] support and [M, D] queries in context."""
        embedded = self.support(support)
        return embedded, self.query(query, embedded)

    def support(self, support: Tensor) -> Tensor:
        """Return [S, D] embeddings g of the support set in context."""
        forwards, backwards = self.support_lstm(support)[0].chunk(2, dim=-1)
        return support + forwards + backwards  # type: ignore[no-any-return]

    def query(self, query: Tensor, support: Tensor) -> Tensor:
        """Return [M, D] embeddings f of queries in the context of [S, D] embeddings g."""
        hidden, cell = query, torch.zeros_like(query)
        for _ in range(self.steps):
            read = F.softmax(hidden @ support.T, dim=-1) @ support
            output, cell = self.query_lstm(torch.cat([query, read], dim=-1), (hidden, cell))
            hidden = output + query
        return hidden
