"""Siamese networks (Koch, Zemel & Salakhutdinov 2015).

"Siamese neural networks for one-shot image recognition", https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Algorithm, AlgorithmConfig, Episode, Setup, Support
from metabench_plugins.algorithms.per_class import log_sum_per_class


class SiameseConfig(AlgorithmConfig):
    """Parameters of `Siamese`.

    Attributes:
        units: units of the fully connected sigmoid layer whose outputs are compared.
        pairs: image pairs compared in each training episode; half of them are of one class.
    """

    units: PositiveInt = 4096
    pairs: PositiveInt = Field(default=512, multiple_of=2)


class Siamese(Algorithm):
    """Learns the probability that two images are of one class.

    The probability is p = σ(Σ_j w_j |e_j(a) - e_j(b)| + c), a weighted L1 distance of embeddings e. The embeddings are
    a fully connected sigmoid layer on top of the backbone (section 3.1). A query is assigned to the class with the
    highest mean probability over its support images.

    The paper adds eight distorted copies of every training image (section 3.2): ``train.augment: [{affine: {}}]``
    distorts eight of nine images instead.
    """

    Config = SiameseConfig
    reads = "features"
    any_way = True

    def __init__(self, config: SiameseConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.dense = nn.Linear(setup.backbone.features, config.units)
        self.distance = nn.Linear(config.units, 1)

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Return [...] log-odds that embeddings share a class."""
        log_odds: Tensor = self.distance((a - b).abs())
        return log_odds.squeeze(-1)

    def embed(self, features: Tensor) -> Tensor:
        """Return [n, units] sigmoid embeddings of [n, D] features."""
        return self.dense(features).sigmoid()  # type: ignore[no-any-return]

    def episode_loss(self, episode: Episode) -> Tensor:
        """Return the binary cross-entropy over pairs of the episode's images."""
        features = self.embed(torch.cat([episode.support.x, episode.query_x]))
        first, second = draw_pairs(torch.cat([episode.support.y, episode.query_y]), self.config.pairs)
        same = features.new_zeros(len(first))
        same[: len(first) // 2] = 1
        return F.binary_cross_entropy_with_logits(
            self.similarity(features.index_select(0, first), features.index_select(0, second)), same
        )

    def adapt(self, support: Support) -> Support:
        """Return the support set with [S, units] embeddings."""
        return replace(support, x=self.embed(support.x))

    def answer(self, support: Support, query: Tensor) -> Tensor:
        """Return [M, N] log mean probabilities for the classes."""
        log_similarity = F.logsigmoid(self.similarity(self.embed(query).unsqueeze(1), support.x.unsqueeze(0)))
        # Average over the images of a class in log space: in float32, probabilities near 1 would tie.
        shots = support.y.bincount(minlength=support.way).to(log_similarity.dtype)
        return log_sum_per_class(log_similarity, support.y, support.way) - shots.log()


def draw_pairs(labels: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Draw pairs of images: the first half share a class.

    The images of a pair of one class differ; the second half of the pairs are of two classes.

    Args:
        labels: [n] labels of at least two classes, each with at least two images.
        pairs: number of pairs, even.

    Returns:
        [pairs] indices of the first images, and [pairs] of the second.
    """
    same = labels.unsqueeze(0) == labels.unsqueeze(1)
    not_itself = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    drawn = [
        choices.flatten().float().multinomial(pairs // 2, replacement=True) for choices in (same & not_itself, ~same)
    ]
    flat = torch.cat(drawn)
    return flat // len(labels), flat % len(labels)
