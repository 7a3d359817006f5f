"""Networks that map images to features."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metabench.api.config import Config


class Backbone(nn.Module, abc.ABC):
    """Maps images to features.

    Args:
        config: an instance of `Config`.
        image_shape: (C, H, W).
    """

    Config: ClassVar[type[Config]] = Config
    #: D, the length of a feature vector; set by the constructor.
    features: int
    #: Whether queries are normalised by the support set, which then has to come along in the same batch.
    needs_support: bool = False
    #: Whether in test the features of an image depend on that image alone: the harness may then embed those of many
    #: episodes at once.
    per_image: bool = False
    #: The dtype that convolutions and products are rounded to; weights, gradients and features stay in float32. The
    #: harness sets it; None rounds nothing.
    autocast: torch.dtype | None = None

    def __init__(self, config: Any, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.config = config

    def __call__(self, x: Tensor, support: int | None = None) -> Tensor:
        """Return the features of `forward`, computed in the precision of `autocast`."""
        if self.autocast is None:
            return super().__call__(x, support)  # type: ignore[no-any-return]
        with torch.autocast(x.device.type, self.autocast):
            features: Tensor = super().__call__(x, support)
        return features.float()

    @abc.abstractmethod
    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """Map [n, C, H, W] images of one episode to [n, D] features; of any where it is `per_image`, in test.

        Args:
            x: the images.
            support: how many of the first images are the support set, for normalisations that take their
                statistics from it; None when all are.
        """


def embed_queries(backbone: Backbone, support_x: Tensor, query_x: Tensor) -> Tensor:
    """Embed [M, C, H, W] queries to [M, D]; the support set comes along only where the backbone needs it."""
    if not backbone.needs_support:
        return backbone(query_x)
    return embed_episode(backbone, support_x, query_x)[1]


def embed_episode(backbone: nn.Module, support_x: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
    """Embed one episode, ([S, C, H, W], [M, C, H, W]) → ([S, D], [M, D]), in one pass over all its images."""
    features = backbone(torch.cat([support_x, query_x]), support=len(support_x))
    support, query = features.split([len(support_x), len(query_x)])
    return support, query
