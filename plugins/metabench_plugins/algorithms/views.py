"""Support sets of which distorted copies are learnt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from metabench.api import Algorithm, CellFailed, Setup, Support, embed_queries


class OnViews(Algorithm):
    """An algorithm that learns from features of `Config.views` distorted copies of each support image.

    With 0 copies it reads features of the support set as it is, which may be embedded once.
    """

    reads: Literal["images", "features"] = "images"

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        self.reads = "images" if config.views else "features"

    def embedded_support(self, support: Support) -> Support:
        """Return the support set with [V·S, D] features of V copies of its S images, one copy after the other.

        Raises:
            CellFailed: there are to be copies, and the training distorts no images.
        """
        if self.reads == "features":
            return support
        views = self.config.views
        if not views:
            return replace(support, x=self.backbone(support.x))
        if self.distort is None:
            raise CellFailed(
                f"views: {views} distorts support images as the training of the weights does, which distorts none: "
                "name distortions in its train.augment, or set views: 0"
            )
        copies = torch.cat([self.distort(support.x) for _ in range(views)])
        return replace(support, x=self.backbone(copies), y=support.y.repeat(views))

    def embedded_query(self, support_x: Tensor, query: Tensor) -> Tensor:
        """Return the [M, D] features of queries.

        Args:
            support_x: the support images: some backbones normalise queries by them.
            query: [M, C, H, W] images, or [M, D] features.
        """
        return query if self.reads == "features" else embed_queries(self.backbone, support_x, query)
