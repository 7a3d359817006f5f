"""Algorithms that compare features."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import torch
from torch import Tensor

from metabench.api.backbones import embed_episode
from metabench.api.optimised import OptimisedAlgorithm

#: Pixels that a CPU embeds in one pass, if they are of more than one episode: more would not stay in its cache.
_PIXELS_AT_ONCE = 2**19


class EmbeddingAlgorithm(OptimisedAlgorithm):
    """An algorithm that looks at features only: `feature_scores` has to be written, of one episode.

    In test, the images of many episodes are embedded in one pass where the backbone is `Backbone.per_image`, unless a
    subclass defines `episode_scores`, and so sees the images.
    """

    #: Whether scores depend on the images beyond their features; set where a subclass defines `episode_scores`.
    sees_images: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "episode_scores" in vars(cls):
            cls.sees_images = True

    @abc.abstractmethod
    def feature_scores(self, support: Tensor, support_y: Tensor, query: Tensor, way: int) -> Tensor:
        """Return the scores of the queries of one episode (no leading B).

        Args:
            support: [N·K, D] features of the support set.
            support_y: [N·K] labels 0 … N-1.
            query: [M, D] features of the queries.
            way: N.

        Returns:
            [M, N]; the largest is the prediction.
        """

    def episode_scores(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """Return the [M, N] scores of the queries of one episode, its images embedded in one pass."""
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
