"""Prototypical networks (Snell, Swersky & Zemel 2017, https://arxiv.org/abs/1703.05175)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from metabench.api import AlgorithmConfig, EmbeddingAlgorithm


class ProtoNetConfig(AlgorithmConfig):
    """Parameters of `ProtoNet`: Adam, its learning rate halved every 2000 episodes (section 3.1)."""

    halve_lr_every: int = Field(default=2000, ge=0)


class ProtoNet(EmbeddingAlgorithm):
    """A query belongs to the class whose mean support embedding is nearest, in squared Euclidean distance.

    It has no parameters beyond the backbone, so it may be trained with more ways than it is tested with.
    """

    Config = ProtoNetConfig
    functional = True

    def feature_scores(self, support: Tensor, support_y: Tensor, query: Tensor, way: int) -> Tensor:
        """Return the [M, N] negative squared distances of the queries to the prototypes (algorithm 1)."""
        return -squared_distances(query, class_means(support, support_y, way))


def class_means(features: Tensor, labels: Tensor, way: int) -> Tensor:
    """Return the [N, D] mean of the [S, D] features of each class: the prototypes (equation 1)."""
    members = F.one_hot(labels, way).to(features.dtype)
    return members.T @ features / members.sum(dim=0).unsqueeze(1)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the [M, N] squared Euclidean distances between the rows of [M, D] and [N, D]."""
    return (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(dim=-1)
