"""Algorithms that compare features."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import torch
from torch import Tensor

from metabench.api.backbones import embed_episode
from metabench.api.optimised import OptimisedAlgorithm

#: Largest number of pixels that a CPU embeds in one pass over several episodes: activations then stay in its cache.
_PIXELS_AT_ONCE = 2**19


class EmbeddingAlgorithm(OptimisedAlgorithm):
    """An algorithm that compares features; subclasses define `feature_scores`.

    If the backbone is `Backbone.per_image`, the images of several test episodes are embedded in one pass, unless a
    subclass overrides `episode_scores` to use the images.
    """

    #: Whether scores depend on the images beyond their features: true of subclasses that override `episode_scores`.
    sees_images: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "episode_scores" in vars(cls):
            cls.sees_images = True

    @abc.abstractmethod
    def feature_scores(self, support: Tensor, support_y: Tensor, query: Tensor, way: int) -> Tensor:
        """Return the scores of the queries of one episode.

        Args:
            support: [N·K, D] features of the support images.
            support_y: [N·K] support labels 0 … N-1.
            query: [M, D] features of the queries.
            way: N.

        Returns:
            [M, N] scores; the largest score of a query is its prediction.
        """

    def episode_scores(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """Embed one episode in one pass; return the [M, N] scores of its queries."""
        support, query = embed_episode(self.backbone, support_x, query_x)
        return self.feature_scores(support, support_y, query, way)

    @torch.no_grad()
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """See `Algorithm.predict`."""
        if self.sees_images or not self.backbone.per_image:
            return super().predict(support_x, support_y, query_x, way)
        self.eval()
        support, query = self._embedded(support_x, query_x)

        def scores(learner: EmbeddingAlgorithm, *episode: Tensor) -> tuple[Tensor]:
            support, support_y, query = episode
            return (learner.feature_scores(support, support_y, query, way),)

        return self.batching.map(scores, self, support, support_y, query)[0]

    def _embedded(self, support_x: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the [B, N·K, D] and [B, M, D] features of B episodes."""
        images = torch.cat([support_x, query_x], dim=1)
        episodes, shots = len(images), support_x.shape[1]
        at_once = episodes
        if images.device.type == "cpu":
            at_once = max(1, _PIXELS_AT_ONCE // images[0, :, 0].numel())
        parts = [self.backbone(part.flatten(0, 1)) for part in torch.split(images, at_once)]
        features = torch.cat(parts)
        features = features.reshape(images.shape[:2] + features.shape[1:])
        return features[:, :shots], features[:, shots:]
